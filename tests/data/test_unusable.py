"""Each reason to drop a row, and the error when there are too many of them."""

from __future__ import annotations

import pytest

from rlhf.data.entries import Entry
from rlhf.data.unusable import Sorted, refuse_too_many, sort_out
from rlhf.errors import UserError
from rlhf.records import Message, Messages


def talk(prompt: str, answer: str) -> Messages:
    return Message("user", prompt), Message("assistant", answer)


def pair(place: str, chosen: str, rejected: str, prompt: str = "p") -> Entry:
    return Entry(place, talk(prompt, chosen), talk(prompt, rejected))


def dropped(*entries: Entry) -> dict[str, list[str]]:
    return {reason: places for reason, places in sort_out(entries).dropped.items() if places}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (Entry("1", ()), "no_answer"),
        (Entry("1", talk("p", "a"), ()), "no_answer"),
        (Entry("1", talk("p", "a"), talk("q", "b")), "different_prompts"),
        (Entry("1", talk("", "a")), "empty_prompt"),
        (Entry("1", talk("", "a")[1:]), "empty_prompt"),
        (Entry("1", talk("p", "")), "empty_response"),
        (Entry("1", talk("p", "a"), talk("p", "")), "empty_response"),
        (Entry("1", talk("p", ""), talk("p", "a")), "empty_response"),
        (Entry("1", talk("p", "a"), talk("p", "a")), "identical_responses"),
    ],
)
def test_a_row_that_is_unusable_by_itself(entry: Entry, reason: str) -> None:
    assert dropped(entry) == {reason: ["1"]}


def test_the_first_of_duplicates_stays() -> None:
    entries = [pair("1", "a", "b"), pair("2", "a", "b"), pair("3", "a", "c"), pair("4", "a", "b", "q"), pair("5", "a", "b")]
    found = sort_out(entries)
    assert [entry.place for entry in found.kept] == ["1", "3", "4"]
    assert found.dropped["duplicate"] == ["2", "5"]
    assert found.read == 5


def test_duplicate_demonstrations() -> None:
    assert dropped(Entry("1", talk("p", "a")), Entry("2", talk("p", "a")), Entry("3", talk("p", "b"))) == {
        "duplicate": ["2"]
    }


def test_rows_that_contradict_each_other_both_go() -> None:
    entries = [pair("1", "a", "b"), pair("2", "b", "c"), pair("3", "b", "a"), pair("4", "b", "a", "q"), pair("5", "a", "b")]
    assert dropped(*entries) == {"contradictory": ["1", "3"], "duplicate": ["5"]}


def test_too_many_unusable_rows_are_an_error_with_their_counts() -> None:
    found = Sorted([pair("9", "a", "b")] * 7, {"empty_prompt": ["x:3", "x:8"], "duplicate": ["x:5"], "no_answer": []})
    refuse_too_many("x", found, 0.3)
    with pytest.raises(UserError) as caught:
        refuse_too_many("x", found, 0.29)
    assert str(caught.value) == (
        "x: 3 of 10 rows cannot be used (0.300, above prepare.max_dropped_share (0.29)): "
        "empty_prompt 2 (first x:3), duplicate 1 (first x:5); mend them, or raise prepare.max_dropped_share"
    )
