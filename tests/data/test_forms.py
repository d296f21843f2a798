"""What each source makes of its rows: prompt, answers, their order, and the margin."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from rlhf.data.entries import ranks_of
from rlhf.records import Message
from tests.data.test_entries import ASKED, NO, WHO_NO, WHO_YES, YES, complaint, entries_of, said

# The columns of HuggingFaceH4/ultrafeedback_binarized.
BINARIZED = {
    "prompt": "who?",
    "prompt_id": "0f",
    "chosen": [*ASKED, YES],
    "rejected": [*ASKED, NO],
    "messages": [*ASKED, YES],
    "score_chosen": 8.5,
    "score_rejected": 6.0,
}
# Those of stanfordnlp/SHP that say something.
POST = {
    "post_id": "x",
    "history": "who?",
    "human_ref_A": "no",
    "human_ref_B": "yes",
    "labels": 0,
    "score_A": 3,
    "score_B": 6,
}


def completion(response: str | None, score: float | None) -> dict[str, Any]:
    """One of those of openbmb/UltraFeedback."""
    return {"model": "alpaca-7b", "principle": "honesty", "response": response, "overall_score": score, "critique": "."}


def rated(*completions: dict[str, Any]) -> dict[str, Any]:
    return {"source": "sharegpt", "instruction": "who?", "models": ["alpaca-7b"], "completions": list(completions)}


def test_ultrafeedback_binarized_has_a_margin_by_its_scores(tmp_path: Path) -> None:
    (entry,) = entries_of(tmp_path, BINARIZED, source="ultrafeedback", margin_per_score=0.5)
    assert (entry.sides, entry.ranks, entry.margin) == ((WHO_YES, WHO_NO), (0, 1), 1.25)
    (entry,) = entries_of(tmp_path, BINARIZED | {"margin": 3.0}, source="ultrafeedback", margin_per_score=0.5)
    assert entry.margin == 3.0, "the data's own"


def test_equal_scores_tie_and_missing_ones_say_nothing(tmp_path: Path) -> None:
    rows = [BINARIZED | {"score_rejected": 8.5}, BINARIZED | {"score_rejected": None}]
    found = entries_of(tmp_path, *rows, source="ultrafeedback", margin_per_score=0.5)
    assert [(entry.ranks, entry.margin) for entry in found] == [((0, 0), 0.0), ((0, 1), 0.0)]


def test_ultrafeedback_ranks_the_completions_that_have_a_score(tmp_path: Path) -> None:
    row = rated(completion("c", 3), completion("a", 7.5), completion("d", None), completion("b", 3), completion("e", 1))
    (entry,) = entries_of(tmp_path, row, source="ultrafeedback", margin_per_score=0.5)
    assert (entry.answers, entry.ranks, entry.margin) == (("a", "c", "b", "e"), (0, 1, 1, 2), 0.0)
    assert {side[:-1] for side in entry.sides} == {said("user: who?")}


def test_two_completions_are_a_pair_with_a_margin(tmp_path: Path) -> None:
    (entry,) = entries_of(
        tmp_path, rated(completion("b", 1), completion("a", 4)), source="ultrafeedback", margin_per_score=0.5
    )
    assert (entry.answers, entry.ranks, entry.margin) == (("a", "b"), (0, 1), 1.5)


def test_completions_without_any_score_are_no_answer(tmp_path: Path) -> None:
    (entry,) = entries_of(tmp_path, rated(completion("a", None)), source="ultrafeedback")
    assert entry.sides == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (rated(completion(None, 3)), "field 'completions[0].response' is null"),
        (
            rated(completion("a", 1), completion("a", True)),
            "field 'completions[1].overall_score' must be a finite number, not true",
        ),
        (rated() | {"completions": ["a"]}, "field 'completions' must be a list of objects like {…}, not [\"a\"]"),
        (rated() | {"instruction": None}, "field 'instruction' is null"),
    ],
)
def test_a_wrong_field_of_ultrafeedback_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    assert complaint(tmp_path, row, source="ultrafeedback") == f"x.jsonl:1: {message}"


@pytest.mark.parametrize(
    ("changes", "answers", "ranks", "margin"),
    [
        ({}, ("yes", "no"), (0, 1), 6.0),
        ({"labels": 1}, ("no", "yes"), (0, 1), 6.0),
        ({"labels": "1", "score_A": "8"}, ("no", "yes"), (0, 1), 4.0),
        ({"score_ratio": 2.0}, ("yes", "no"), (0, 1), 2 * math.log(2)),
        ({"labels": None}, ("yes", "no"), (0, 1), 6.0),
        ({"labels": None, "score_A": 6}, ("no", "yes"), (0, 0), 0.0),
        ({"labels": None, "score_A": 6, "score_ratio": 2.0}, ("no", "yes"), (0, 0), 0.0),
        ({"score_A": None}, ("yes", "no"), (0, 1), 0.0),
    ],
)
def test_shp(
    tmp_path: Path, changes: dict[str, Any], answers: tuple[str, ...], ranks: tuple[int, ...], margin: float
) -> None:
    (entry,) = entries_of(tmp_path, POST | changes, source="shp", margin_per_score=2.0)
    assert (entry.answers, entry.ranks, entry.margin) == (answers, ranks, pytest.approx(margin))
    assert entry.prompt == said("user: who?")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": 2}, "field 'labels' must be 1 (A is preferred) or 0 (B is), not 2.0"),
        (
            {"labels": None, "score_B": None},
            "has neither field 'labels' nor both of 'score_A' and 'score_B': which is preferred?",
        ),
        ({"score_ratio": 0}, "field 'score_ratio' must be above 0, not 0.0"),
        ({"human_ref_B": None}, "field 'human_ref_B' is null"),
    ],
)
def test_a_wrong_field_of_shp_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert complaint(tmp_path, POST | changes, source="shp") == f"x.jsonl:1: {message}"


def test_alpaca(tmp_path: Path) -> None:
    rows = [
        {"instruction": "who?", "output": "yes"},
        {"instruction": "who?", "input": "", "output": "yes", "text": "all of it"},
        {"instruction": "Translate.", "input": "ja", "output": "yes"},
    ]
    found = [entry.sides for entry in entries_of(tmp_path, *rows, source="alpaca")]
    assert found == [(WHO_YES,), (WHO_YES,), (said("user: Translate.\nja", "assistant: yes"),)]


SYSTEM = {"system": " be kind\n"}
KIND = "system: be kind"


def test_alpacas_system_and_history_stand_before_the_instruction(tmp_path: Path) -> None:
    rows = [
        {"instruction": "who?", "output": "yes"},  # the first row may lack what others have
        {"instruction": "who?", "input": "x", "output": "yes", "history": [["a", "b"], ["c", "d"]]} | SYSTEM,
        {"instruction": "who?", "input": "", "output": "yes", "history": [], "system": ""},
        {"instruction": "who?", "input": None, "output": "yes", "history": None, "system": None},
        {"instruction": "who?", "output": "yes", "history": "", "system": " "},
    ]
    found = [entry.sides[0] for entry in entries_of(tmp_path, *rows, source="alpaca")]
    before = said(KIND, "user: a", "assistant: b", "user: c", "assistant: d")
    assert found == [WHO_YES, (*before, *said("user: who?\nx", "assistant: yes")), WHO_YES, WHO_YES, WHO_YES]


@pytest.mark.parametrize(
    ("source", "row"),
    [
        ("messages", {"messages": [*ASKED, YES]}),
        ("messages", {"conversations": [{"from": "human", "value": "who?"}, {"from": "gpt", "value": "yes"}]}),
        ("conversations", {"conversations": ASKED, "chosen": YES, "rejected": NO}),
        ("conversations", {"conversations": ASKED, "chosen": [*ASKED, YES], "rejected": [*ASKED, NO]}),
    ],
)
def test_a_system_column_opens_the_conversation(tmp_path: Path, source: str, row: dict[str, Any]) -> None:
    first, second = entries_of(tmp_path, row, row | SYSTEM, source=source)
    assert [side[0] for side in first.sides] == [Message("user", "who?")] * len(first.sides)
    assert second.sides == tuple((*said(KIND), *side) for side in first.sides)


def test_a_conversation_that_opens_with_a_system_turn_has_its_own(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "be brief"}, *ASKED, YES]
    (entry,) = entries_of(tmp_path, {"messages": turns} | SYSTEM, source="messages")
    assert entry.sides[0] == said("system: be brief", "user: who?", "assistant: yes")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system": 7}, "field 'system' must be text, not 7"),
        ({"history": ["a", "b"]}, "field 'history[0]' must be a question and its answer, […, …], not \"a\""),
        ({"history": [["a", "b"], ["c"]]}, "field 'history[1]' must be a question and its answer, […, …], not [\"c\"]"),
        ({"history": [["a", None]]}, "field 'history[0][1]' is null"),
        ({"history": "a"}, "field 'history[0]' must be a question and its answer, […, …], not \"a\""),
    ],
)
def test_a_wrong_opening_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert complaint(tmp_path, {"instruction": "a", "output": "b"} | changes, source="alpaca") == f"x.jsonl:1: {message}"


def test_a_column_that_is_said_to_be_another_does_not_open_the_conversation(tmp_path: Path) -> None:
    row = {"instruction": "a", "system": "who?", "output": "yes"}
    (entry,) = entries_of(tmp_path, row, source="alpaca", columns={"prompt": "system"})
    assert entry.sides == (WHO_YES,)


def test_an_empty_answer_to_a_post_is_none(tmp_path: Path) -> None:
    (entry,) = entries_of(tmp_path, POST | {"history": [*ASKED, YES], "human_ref_A": []}, source="shp")
    assert () in entry.sides


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [*ASKED, YES]},
        {"conversations": [{"from": "human", "value": "who?"}, {"from": "gpt", "value": "yes"}]},
        {"conversations": "other", "messages": [*ASKED, YES]},
    ],
)
def test_conversations_in_either_form(tmp_path: Path, row: dict[str, Any]) -> None:
    (entry,) = entries_of(tmp_path, row, source="messages")
    assert entry.sides == (WHO_YES,)


@pytest.mark.parametrize("answer", ["yes", {"from": "gpt", "value": "yes"}, YES, [YES]])
def test_a_preference_after_a_conversation(tmp_path: Path, answer: Any) -> None:
    row = {"conversations": [{"from": "system", "value": "be kind"}, {"from": "human", "value": "who?"}], "chosen": answer}
    (entry,) = entries_of(tmp_path, row | {"rejected": "no"}, source="conversations")
    assert entry.sides == (
        said("system: be kind", "user: who?", "assistant: yes"),
        said("system: be kind", "user: who?", "assistant: no"),
    )


def test_plain_preferences(tmp_path: Path) -> None:
    (entry,) = entries_of(tmp_path, {"prompt": "who?", "chosen": "yes", "rejected": "no", "margin": 2}, source="preferences")
    assert (entry.sides, entry.ranks, entry.margin) == ((WHO_YES, WHO_NO), (0, 1), 2.0)


@pytest.mark.parametrize(
    ("source", "row", "message"),
    [
        ("alpaca", {"asked": "a", "output": "b"}, "has no column instruction, but asked, output"),
        ("shp", {"history": "a"}, "has no columns human_ref_A and human_ref_B, but history"),
        ("ultrafeedback", {"prompt": "a"}, "has no columns chosen and rejected, but prompt"),
        ("ultrafeedback", {"completions": []}, "has no column instruction, but completions"),
        ("messages", {"turns": []}, "has no column messages (or conversations), but turns"),
        ("conversations", {"chosen": "a", "rejected": "b"}, "has no column conversations, but chosen, rejected"),
        ("preferences", {"chosen": "a", "rejected": "b"}, "has no column prompt, but chosen, rejected"),
    ],
)
def test_a_column_that_a_source_needs_is_named(tmp_path: Path, source: str, row: dict[str, Any], message: str) -> None:
    assert complaint(tmp_path, row, source=source) == f"x.jsonl: {message}; data=files reads other forms"


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (POST, "shp"),
        (rated(), "ultrafeedback"),
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca"),
        ({"conversations": []}, "messages"),
        ({"message_id": "a", "message_tree_id": "b"}, "oasst"),
    ],
)
def test_of_a_form_that_another_source_reads_its_name_is_said(tmp_path: Path, row: dict[str, Any], name: str) -> None:
    assert f"; is this {name} (data={name})?; " in complaint(tmp_path, row)


def test_a_column_of_ones_own_stands_for_that_of_the_set(tmp_path: Path) -> None:
    row = {"question": "who?", "input": "", "output": "yes"}
    (entry,) = entries_of(tmp_path, row, source="alpaca", columns={"prompt": "question"})
    assert entry.sides == (WHO_YES,)


@pytest.mark.parametrize(("scores", "ranks"), [([3.0, 1.0, 3.0, 2.0], [0, 2, 0, 1]), ([1.0], [0]), ([], [])])
def test_ranks_are_of_the_levels_of_the_scores(scores: list[float], ranks: list[int]) -> None:
    assert ranks_of(scores) == ranks


def test_columns_that_are_meant_are_named_in_the_setting_that_says_so(tmp_path: Path) -> None:
    row = {"question": "who ?", "chosen": "i .", "worse": "no ."}
    assert complaint(tmp_path, row, source="preferences") == (
        "x.jsonl: has no columns prompt and rejected, but question, chosen, worse; say which is which: "
        "'data.columns={prompt: question, rejected: worse}'"
    )
    assert complaint(tmp_path, {"question": "who ?", "chosen": "i ."}, source="preferences").endswith("reads other forms")
