"""Two labelers beside each other, as the command tells it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlhf.data.files import write_records
from rlhf.errors import UserError
from rlhf.labeling import compare
from rlhf.records import Message, Ranking, Response


def ranking(prompt: str, texts: str, ranks: tuple[int, ...], labeler: str = "gold") -> Ranking:
    responses = tuple(Response(text, True, "sft") for text in texts)
    return Ranking((Message("user", prompt),), responses, ranks, "train", labeler)


OURS = [ranking("one", "abc", (1, 2, 3)), ranking("two", "ab", (1, 2)), ranking("three", "ab", (1, 2))]
# The responses stand in another order, and of the pairs a-b, a-c and b-c they name another one in b-c; "two" is a tie.
THEIRS = [
    ranking("two", "ba", (1, 1), "judge"),
    ranking("one", "cba", (2, 3, 1), "judge"),
    ranking("three", "ax", (1, 2), "judge"),
]


def write(folder: Path, rankings: list[Ranking]) -> Path:
    folder.mkdir()
    write_records(folder / "rankings.jsonl", rankings)
    return folder


def test_what_both_have_ordered_is_compared_whatever_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = write(tmp_path / "a", OURS), write(tmp_path / "b", THEIRS)
    assert compare.main([str(ours), str(theirs / "rankings.jsonl")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "gold (3 prompts) beside judge (3): 2 in common"
    # Of 8 answers in both directions 4 are the same; ours are half this one and half that one, theirs three of each and two
    # ties: chance brings 3/8.
    kappa = (4 / 8 - 3 / 8) / (1 - 3 / 8)
    figures = {line.split()[0]: float(line.split()[1]) for line in said[1:]}
    assert figures == {"pairs": 4, "ordered_pairs": 3, "agreement": round(2 / 3, 3), "kappa": round(kappa, 3)}


def test_who_labels_twice_alike_agrees_wholly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = write(tmp_path / "a", OURS)
    again = write(tmp_path / "b", [replace(one, labeler="again") for one in OURS])
    compare.main([str(ours), str(again)])
    assert "agreement      1.000" in (said := capsys.readouterr().out)
    assert "kappa          1.000" in said


def test_labels_of_other_responses_and_a_place_without_any_are_refused(tmp_path: Path) -> None:
    ours, theirs = write(tmp_path / "a", OURS), write(tmp_path / "b", THEIRS[2:])
    with pytest.raises(UserError, match="have no prompt with the same responses: label one sample twice"):
        compare.main([str(ours), str(theirs)])
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match=r"c/rankings\.jsonl is missing"):
        compare.main([str(ours), str(tmp_path / "c")])
