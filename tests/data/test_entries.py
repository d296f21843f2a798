"""Every form of the ecosystem becomes the same conversations; a wrong column or field is named."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf.data.entries import Entry, read_entries
from rlhf.data.unusable import survey
from rlhf.data.values import read_margin
from rlhf.errors import UserError
from rlhf.records import Message, Messages
from tests.data.settings import settings

ASKED = [{"role": "user", "content": "who?"}]
YES, NO = ({"role": "assistant", "content": text} for text in ("yes", "no"))
MORE = {"role": "user", "content": "sure?"}


def said(*turns: str) -> Messages:
    """said("user: who?", "assistant: yes")"""
    return tuple(Message(*turn.split(": ", 1)) for turn in turns)  # type: ignore[arg-type]


WHO_YES, WHO_NO = said("user: who?", "assistant: yes"), said("user: who?", "assistant: no")


def entries_of(folder: Path, *rows: dict[str, Any], source: str = "files", **given: Any) -> list[Entry]:
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_entries(path, settings(source, path, **given), Counter()))


def complaint(folder: Path, *rows: dict[str, Any], **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        entries_of(folder, *rows, **given)
    return str(caught.value).replace(str(folder / "x.jsonl"), "x.jsonl")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "who?", "completion": "yes"},
        {"prompt": " who?\n", "completion": " yes"},
        {"prompt": ASKED, "completion": [YES]},
        {"prompt": ASKED, "completion": "yes"},
        {"messages": [*ASKED, YES]},
        {"messages": [*ASKED, YES, MORE]},
        {"messages": [{"from": "human", "value": "who?"}, {"from": "gpt", "value": "yes"}]},
        {"prompt": "other", "completion": [*ASKED, YES]},
    ],
)
def test_demonstrations(tmp_path: Path, row: dict[str, Any]) -> None:
    (entry,) = entries_of(tmp_path, row)
    assert entry == Entry(f"{tmp_path / 'x.jsonl'}:1", (WHO_YES,))
    assert entry.prompt == said("user: who?")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "who?", "chosen": "yes", "rejected": "no"},
        {"prompt": ASKED, "chosen": [YES], "rejected": [NO]},
        {"chosen": [*ASKED, YES], "rejected": [*ASKED, NO]},
        {"prompt": "who?", "chosen": [*ASKED, YES], "rejected": [*ASKED, NO], "messages": [*ASKED, NO], "score_chosen": 1.0},
    ],
)
def test_preferences(tmp_path: Path, row: dict[str, Any]) -> None:
    (entry,) = entries_of(tmp_path, row)
    assert (entry.sides, entry.ranks) == ((WHO_YES, WHO_NO), (0, 1))


def test_an_answer_of_several_turns_ends_with_the_response(tmp_path: Path) -> None:
    (entry,) = entries_of(tmp_path, {"prompt": "who?", "completion": [YES, MORE, NO]})
    assert entry.sides[0] == said("user: who?", "assistant: yes", "user: sure?", "assistant: no")


def test_a_system_turn_stays(tmp_path: Path) -> None:
    (entry,) = entries_of(tmp_path, {"messages": [{"role": "system", "content": "be kind"}, *ASKED, YES]})
    assert entry.sides[0] == said("system: be kind", "user: who?", "assistant: yes")


def test_a_conversation_without_an_answer_is_empty(tmp_path: Path) -> None:
    assert entries_of(tmp_path, {"messages": ASKED})[0].sides[0] == ()
    assert entries_of(tmp_path, {"messages": []})[0].sides[0] == ()


ANSWERED_BEFORE = [*ASKED, YES, MORE]


@pytest.mark.parametrize("answers", [{"completion": []}, {"chosen": [], "rejected": []}, {"chosen": [], "rejected": [NO]}])
def test_an_empty_list_answers_nothing_whatever_was_answered_before(tmp_path: Path, answers: dict[str, Any]) -> None:
    (entry,) = entries_of(tmp_path, {"prompt": ANSWERED_BEFORE} | answers)
    assert entry.sides[0] == ()
    assert [len(side) for side in entry.sides[1:]] == [4 * bool(answer) for answer in list(answers.values())[1:]]
    assert survey([entry]).reasons == ["no_answer"]


@pytest.mark.parametrize("turns", [[*ASKED, YES], [{"from": "human", "value": "who?"}, {"from": "gpt", "value": "yes"}]])
@pytest.mark.parametrize("write", [json.dumps, repr, lambda turns: json.dumps(turns, indent=1)])
def test_a_list_of_turns_that_came_as_text_is_named(tmp_path: Path, turns: Any, write: Callable[[Any], str]) -> None:
    said = complaint(tmp_path, {"conversations": write(turns)}, source="messages")
    assert said.startswith("x.jsonl:1: field 'conversations' is a list of turns that was written as text (")
    assert said.endswith("give it as a list, in JSON lines or Parquet")


@pytest.mark.parametrize(
    "text", ["[]", "[1]", '[{"role": "user"}]', '[{"role": "user", "content": ', '["role"]', "[{'role': x}]"]
)
def test_other_text_in_brackets_is_text(tmp_path: Path, text: str) -> None:
    (entry,) = entries_of(tmp_path, {"prompt": text, "completion": text})
    assert entry.sides[0] == (Message("user", text.strip()), Message("assistant", text.strip()))


def test_the_tutorials_own_columns(tmp_path: Path) -> None:
    (entry,) = entries_of(tmp_path, {"用户": "who?", "LLM": "yes"}, columns={"prompt": "用户", "completion": "LLM"})
    assert entry.sides[0] == WHO_YES


def test_alpacas_columns(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Translate.", "input": "ja", "output": "yes"},
        {"instruction": "who?", "input": "", "output": "yes"},
        {"instruction": "who?", "input": None, "output": "yes"},
    ]
    columns = {"prompt": "instruction", "input": "input", "completion": "output"}
    found = [entry.sides[0] for entry in entries_of(tmp_path, *rows, columns=columns)]
    assert found == [said("user: Translate.\nja", "assistant: yes"), WHO_YES, WHO_YES]
    without = {"prompt": "instruction", "completion": "output"}
    assert entries_of(tmp_path, rows[0], columns=without)[0].prompt == said("user: Translate.")


def test_a_prompt_may_be_a_conversation_under_another_name(tmp_path: Path) -> None:
    row = {"conversations": [{"from": "human", "value": "who?"}], "chosen": "yes", "rejected": "no"}
    (entry,) = entries_of(tmp_path, row, columns={"prompt": "conversations"})
    assert (entry.sides, entry.ranks) == ((WHO_YES, WHO_NO), (0, 1))


def test_the_columns_setting_decides_between_two_forms(tmp_path: Path) -> None:
    row = {"prompt": "who?", "chosen": "yes", "rejected": "no", "best": "maybe"}
    assert entries_of(tmp_path, row)[0].sides == (WHO_YES, WHO_NO)
    (entry,) = entries_of(tmp_path, row, columns={"completion": "best"})
    assert entry.sides == (said("user: who?", "assistant: maybe"),)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": None, "rejected": "c"}, "x.jsonl:2: field 'chosen' is null"),
        ({"prompt": "a", "rejected": "c"}, "x.jsonl:2: field 'chosen' is missing"),
        ({"prompt": "a", "chosen": 7, "rejected": "c"}, "x.jsonl:2: field 'chosen' must be text, not 7"),
        ({"prompt": "a", "chosen": {}, "rejected": "c"}, "x.jsonl:2: field 'chosen' must be text, not {}"),
        ({"prompt": None, "chosen": "b", "rejected": "c"}, "x.jsonl:2: field 'prompt' is null"),
        (
            {"prompt": "a", "chosen": "b", "rejected": ["c"]},
            "x.jsonl:2: field 'rejected[0]' must be a turn like {role, content}, not \"c\"",
        ),
        (
            {"prompt": [{"role": "tool", "content": "a"}], "chosen": "b", "rejected": "c"},
            "x.jsonl:2: field 'prompt[0].role' must be one of system, user, assistant, human, gpt, not \"tool\"",
        ),
        (
            {"prompt": [{"from": "human", "value": None}], "chosen": "b", "rejected": "c"},
            "x.jsonl:2: field 'prompt[0].value' is null",
        ),
        (
            {"prompt": "a", "chosen": "\ud83d", "rejected": "c"},
            "x.jsonl:2: field 'chosen' holds half a character (\\ud83d), which no UTF-8 can write",
        ),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    assert complaint(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "c"}, row) == message


PAIR = {"prompt": "who?", "chosen": "yes", "rejected": "no"}


@pytest.mark.parametrize(
    ("said_margin", "meant"), [(0.5, 0.5), (2, 2.0), (0, 0.0), ("1.5", 1.5), (" 2 ", 2.0), ("", 0.0), (None, 0.0)]
)
def test_a_preference_may_bring_a_margin(tmp_path: Path, said_margin: Any, meant: float) -> None:
    without, with_margin = entries_of(tmp_path, PAIR, PAIR | {"margin": said_margin})
    assert (without.margin, with_margin.margin) == (0.0, meant)
    (renamed,) = entries_of(tmp_path, PAIR | {"gap": said_margin}, columns={"margin": "gap"})
    assert renamed.margin == meant


def test_a_transcript_may_bring_a_margin_and_a_demonstration_has_none(tmp_path: Path) -> None:
    row = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c", "margin": 0.25}
    assert entries_of(tmp_path, row, source="hh_rlhf")[0].margin == 0.25
    assert entries_of(tmp_path, {"prompt": "who?", "completion": "yes", "margin": "wide"})[0].margin == 0.0


@pytest.mark.parametrize(
    ("margin", "seen"),
    [("wide", '"wide"'), (-0.1, "-0.1"), (True, "true"), ([1], "[1]"), ("nan", '"nan"'), ("inf", '"inf"'), ({}, "{}")],
)
def test_a_margin_that_is_none_is_named_with_its_line(tmp_path: Path, margin: Any, seen: str) -> None:
    expected = f"must be a finite number of at least 0, not {seen}"
    assert complaint(tmp_path, PAIR, PAIR | {"margin": margin}) == f"x.jsonl:2: field 'margin' {expected}"
    renamed = complaint(tmp_path, PAIR | {"gap": margin}, columns={"margin": "gap"})
    assert renamed == f"x.jsonl:1: field 'gap' {expected}"


def test_a_margin_that_is_nan_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="NaN is not a number of JSON"):
        entries_of(tmp_path, PAIR | {"margin": float("nan")})
    with pytest.raises(UserError, match=r"x: row 3: field 'margin' must be a finite number of at least 0, not NaN"):
        read_margin("x: row 3", "margin", float("nan"))
    with pytest.raises(UserError, match="must be a finite number"):
        read_margin("x: row 3", "margin", 10**400)


def test_a_complaint_speaks_of_the_users_column(tmp_path: Path) -> None:
    columns = {"prompt": "用户", "completion": "LLM"}
    rows = {"用户": "a", "LLM": "b"}, {"用户": "a", "LLM": None}
    assert complaint(tmp_path, *rows, columns=columns) == "x.jsonl:2: field 'LLM' is null"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"prompt": "qestion"},
            "data.columns.prompt (qestion): x.jsonl has no such column; did you mean question?; it has question, answer",
        ),
        ({"prompt": "zzz"}, "data.columns.prompt (zzz): x.jsonl has no such column; it has question, answer"),
    ],
)
def test_a_misspelt_column_setting_is_named(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    assert complaint(tmp_path, {"question": "a", "answer": "b"}, columns=columns) == message


@pytest.mark.parametrize(
    ("row", "meant"),
    [
        ({"question": "a", "answer": "b"}, ""),
        ({"prompt": "a", "completions": "b"}, "; is 'completions' meant as 'completion'?"),
    ],
)
def test_columns_of_no_form_are_named(tmp_path: Path, row: dict[str, Any], meant: str) -> None:
    assert complaint(tmp_path, row) == (
        f"x.jsonl: the columns {', '.join(row)} make none of the forms chosen + rejected, messages, prompt + completion"
        f"{meant}; say which is which, for example 'data.columns={{prompt: question, completion: answer}}'"
    )


def test_a_column_is_not_used_twice(tmp_path: Path) -> None:
    rows = {"prompt": "yes", "question": "who?"}
    assert complaint(tmp_path, rows, columns={"completion": "prompt"}).startswith(
        "x.jsonl: the columns prompt, question make"
    )
    (entry,) = entries_of(tmp_path, rows, columns={"completion": "prompt", "prompt": "question"})
    assert entry.sides[0] == WHO_YES


def test_an_answer_without_a_prompt_is_named(tmp_path: Path) -> None:
    assert complaint(tmp_path, {"question": "a", "chosen": "b", "rejected": "c"}) == (
        "x.jsonl:1: field 'chosen' has no prompt before it: name the prompt's column with data.columns.prompt "
        "(the columns are question, chosen, rejected), or is this HH-RLHF (data=hh_rlhf)?"
    )


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("\n\nHuman: who?\n\nAssistant: yes", ["user: who?", "assistant: yes"]),
        ("\n\nHuman:who?\n\nAssistant:yes", ["user: who?", "assistant: yes"]),
        ("Human: who?\n\nAssistant: yes", ["user: who?", "assistant: yes"]),
        ("\r\n\r\nHuman: who?\r\n\r\nAssistant: yes", ["user: who?", "assistant: yes"]),
        ("\n\nHuman: who?\n\nAssistant: yes\n\nno", ["user: who?", "assistant: yes\n\nno"]),
        ("\n\nHuman: a Human: b\nHuman: c\n\nAssistant: yes", ["user: a Human: b\nHuman: c", "assistant: yes"]),
        ("\n\nAssistant: hi\n\nHuman: who?\n\nAssistant: yes", ["assistant: hi", "user: who?", "assistant: yes"]),
        ("\n\nHuman: a\n\nHuman: b\n\nAssistant: yes", ["user: a\n\nb", "assistant: yes"]),
        ("\n\nHuman: a\n\nAssistant: b\n\nAssistant: yes", ["user: a", "assistant: b", "assistant: yes"]),
        ("\n\nHuman: who?\n\nAssistant: yes\n\nHuman: sure?", ["user: who?", "assistant: yes"]),
        ("be kind\n\nHuman: who?\n\nAssistant: yes", ["system: be kind", "user: who?", "assistant: yes"]),
        ("\n\nHuman: who?\n\nAssistant:", ["user: who?", "assistant: "]),
        ("\n\nAssistant: yes", ["assistant: yes"]),
        ("\n\nHuman: who?", []),
        ("", []),
        ("nobody speaks", []),
    ],
)
def test_transcripts(tmp_path: Path, text: str, turns: list[str]) -> None:
    (entry,) = entries_of(tmp_path, {"chosen": text, "rejected": "\n\nHuman: x\n\nAssistant: y"}, source="hh_rlhf")
    assert entry.sides[0] == said(*turns)
    assert entry.sides[1] == said("user: x", "assistant: y")


def test_a_file_that_is_no_hh_rlhf_is_named(tmp_path: Path) -> None:
    assert complaint(tmp_path, {"prompt": "a", "completion": "b"}, source="hh_rlhf") == (
        "x.jsonl: has no columns chosen and rejected, but prompt, completion; data=files reads other forms"
    )
