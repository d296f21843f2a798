"""Each reason to drop a row, and the error when there are too many of them."""

from __future__ import annotations

import pytest

from rlhf.data.entries import Entry
from rlhf.data.unusable import kept, refuse_too_many, survey
from rlhf.errors import UserError
from rlhf.records import Message, Messages


def talk(prompt: str, answer: str) -> Messages:
    return Message("user", prompt), Message("assistant", answer)


def pair(place: str, chosen: str, rejected: str, prompt: str = "p") -> Entry:
    return Entry(place, (talk(prompt, chosen), talk(prompt, rejected)), (0, 1))


def ranked(place: str, *answers: str, ranks: tuple[int, ...]) -> Entry:
    return Entry(place, tuple(talk("p", answer) for answer in answers), ranks)


def demonstration(place: str, answer: str) -> Entry:
    return Entry(place, (talk("p", answer),))


def dropped(*entries: Entry) -> dict[str, list[str]]:
    places: dict[str, list[str]] = {}
    for entry, reason in zip(entries, survey(entries).reasons, strict=True):
        if reason:
            places.setdefault(reason, []).append(entry.place)
    return places


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (Entry("1", ()), "no_answer"),
        (Entry("1", ((),)), "no_answer"),
        (Entry("1", (talk("p", "a"), ()), (0, 1)), "no_answer"),
        (Entry("1", (talk("p", "a"), talk("q", "b")), (0, 1)), "different_prompts"),
        (Entry("1", (talk("", "a"),)), "empty_prompt"),
        (Entry("1", (talk("", "a")[1:],)), "empty_prompt"),
        (Entry("1", (talk("p", ""),)), "empty_response"),
        (pair("1", "a", ""), "empty_response"),
        (pair("1", "", "a"), "empty_response"),
        (ranked("1", "a", "b", "", ranks=(0, 1, 2)), "empty_response"),
        (pair("1", "a", "a"), "identical_responses"),
        (ranked("1", "a", "a", "a", ranks=(0, 0, 1)), "identical_responses"),
    ],
)
def test_a_row_that_is_unusable_by_itself(entry: Entry, reason: str) -> None:
    assert dropped(entry) == {reason: ["1"]}


def test_the_first_of_duplicates_stays() -> None:
    entries = [pair("1", "a", "b"), pair("2", "a", "b"), pair("3", "a", "c"), pair("4", "a", "b", "q"), pair("5", "a", "b")]
    found = survey(entries)
    assert [entry.place for entry in kept(entries, found, found.kept_prompts())] == ["1", "3", "4"]
    assert dropped(*entries) == {"duplicate": ["2", "5"]}


def test_duplicate_demonstrations_and_rankings() -> None:
    assert dropped(demonstration("1", "a"), demonstration("2", "a"), demonstration("3", "b")) == {"duplicate": ["2"]}
    orders = [
        ranked(str(place), "a", "b", "c", ranks=ranks) for place, ranks in enumerate([(0, 1, 1), (0, 0, 1), (0, 1, 1)])
    ]
    assert dropped(*orders) == {"duplicate": ["2"]}


def test_only_the_rows_of_the_prompts_that_were_drawn_are_kept() -> None:
    entries = [pair("1", "a", "b"), pair("2", "a", "b", "q"), pair("3", "a", "c", " P "), pair("4", "a", "b", "r")]
    found = survey(entries)
    first, second, third = found.kept_prompts()
    assert [entry.place for entry in kept(entries, found, [third, first])] == ["1", "3", "4"], "a prompt in any case"
    assert [entry.place for entry in kept(entries, found, [second])] == ["2"]


def test_rows_that_contradict_each_other_both_go() -> None:
    entries = [pair("1", "a", "b"), pair("2", "b", "c"), pair("3", "b", "a"), pair("4", "b", "a", "q"), pair("5", "a", "b")]
    assert dropped(*entries) == {"contradictory": ["1", "3"], "duplicate": ["5"]}


def test_rankings_that_contradict_each_other_in_one_pair_both_go() -> None:
    three = ranked("1", "a", "b", "c", ranks=(0, 1, 2))
    assert dropped(three, pair("2", "a", "c"), ranked("3", "d", "b", "a", ranks=(0, 1, 1))) == {}
    assert dropped(three, pair("2", "c", "a"), pair("3", "a", "b")) == {"contradictory": ["1", "2"]}
    assert dropped(three, ranked("2", "b", "a", ranks=(0, 0))) == {}, "a tie denies nothing"


def test_too_many_unusable_rows_are_an_error_with_their_counts() -> None:
    entries = [pair(f"x:{n}", f"a{n}", "b") for n in range(10)]
    entries[3], entries[8] = (pair(f"x:{n}", "a", "b", "") for n in (3, 8))
    entries[5] = pair("x:5", "a4", "b")
    found = survey(entries)
    refuse_too_many("x", entries, found, 0.3, "mend them")
    with pytest.raises(UserError) as caught:
        refuse_too_many("x", entries, found, 0.29, "mend them")
    assert str(caught.value) == (
        "x: 3 of 10 rows cannot be used (0.300, above prepare.max_dropped_share (0.29)): "
        "empty_prompt 2 (first x:3), duplicate 1 (first x:5); mend them, or raise prepare.max_dropped_share"
    )
