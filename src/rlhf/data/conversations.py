"""Turns in the forms they come in, as `Message`s: plain text, {role, content}, {from, value}, and HH-RLHF's transcripts."""

from __future__ import annotations

import ast
import json
import re
from itertools import groupby
from typing import Any

from rlhf.data.files import shown
from rlhf.data.values import read_text
from rlhf.errors import UserError
from rlhf.records import Message, Messages

SPEAKER = re.compile(r"(?:\A\s*|\r?\n\r?\n)(Human|Assistant):")
AS_TEXT = re.compile(r"\s*\[\s*\{\s*[\"'](?:role|from|content|value)[\"']")  # how a list of turns begins
ROLES = {"system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"}


def message(role: str, text: str) -> Message:
    """One turn; white space around it says nothing and goes."""
    return Message(role, text.strip())  # type: ignore[arg-type]


def read_turns(place: str, column: str, value: Any, role: str) -> Messages:
    """A field that is text, which is one turn of `role`, a turn, or a list of turns. UserError names what is neither, and a
    list that came as text."""
    if isinstance(value, dict) and value:
        return (_turn(place, column, value),)
    if not isinstance(value, list):
        text = read_text(place, column, value)
        if _are_turns(text):
            raise UserError(
                f"{place}: field '{column}' is a list of turns that was written as text ({shown(text)}): give it as a list, "
                "in JSON lines or Parquet"
            )
        return (message(role, text),)
    return tuple(_turn(place, f"{column}[{i}]", turn) for i, turn in enumerate(value))


def _are_turns(text: str) -> bool:
    """Whether a text is a list of turns in JSON, or as Python prints it, which is how tables are written as CSV."""
    if not AS_TEXT.match(text):
        return False
    for parse in (json.loads, ast.literal_eval):
        try:
            return all(
                isinstance(turn, dict) and ({"role", "content"} <= turn.keys() or {"from", "value"} <= turn.keys())
                for turn in parse(text)
            )
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return False


def read_history(place: str, column: str, value: Any) -> Messages:
    """Earlier questions with their answers, [[question, answer], …], as turns; null and an empty cell are none.

    Raises:
        UserError: it is anything else.
    """
    if value is None or value == "":
        return ()
    pairs = value if isinstance(value, list) else [value]
    turns: list[Message] = []
    for i, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            raise UserError(f"{place}: field '{column}[{i}]' must be a question and its answer, […, …], not {shown(pair)}")
        asked, answered = (read_text(place, f"{column}[{i}][{j}]", text) for j, text in enumerate(pair))
        turns += [message("user", asked), message("assistant", answered)]
    return tuple(turns)


def _turn(place: str, column: str, turn: Any) -> Message:
    match turn:
        case {"role": role, "content": content}:
            names = "role", "content"
        case {"from": role, "value": content}:
            names = "from", "value"
        case _:
            raise UserError(f"{place}: field '{column}' must be a turn like {{role, content}}, not {shown(turn)}")
    if not isinstance(role, str) or role not in ROLES:
        raise UserError(f"{place}: field '{column}.{names[0]}' must be one of {', '.join(ROLES)}, not {shown(role)}")
    return message(ROLES[role], read_text(place, f"{column}.{names[1]}", content))


def read_transcript(place: str, column: str, value: Any) -> Messages:
    """The turns of HH-RLHF's "\\n\\nHuman: …\\n\\nAssistant: …". Text before the first of them is a system turn.

    A speaker's name opens a turn at the start of a paragraph only; elsewhere it is part of what is said.
    """
    text = read_text(place, column, value)
    before, *parts = SPEAKER.split(text)
    spoken = zip(parts[::2], parts[1::2], strict=True)
    opening = (message("system", before),) if before.strip() else ()
    return (*opening, *(message("user" if speaker == "Human" else "assistant", said) for speaker, said in spoken))


def to_last_answer(messages: Messages) -> Messages:
    """Up to and including the last assistant turn; what the user said after it has no answer. () where there is none."""
    ends = [i for i, turn in enumerate(messages, start=1) if turn.role == "assistant"]
    return messages[: ends[-1]] if ends else ()


def with_joined_turns(messages: Messages) -> Messages:
    """Neighbouring turns of one role before the last turn as one: many chat templates take turns in strict alternation."""
    before, last = messages[:-1], messages[-1:]
    joined = [
        message(role, "\n\n".join(turn.content for turn in turns)) for role, turns in groupby(before, lambda t: t.role)
    ]
    return (*joined, *last)
