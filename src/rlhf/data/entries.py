"""Rows of the user's files understood as whole conversations, in the ecosystem's forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlhf.data.columns import choose_form, name_columns
from rlhf.data.conversations import message, read_transcript, read_turns, to_last_answer, with_joined_turns
from rlhf.data.files import shown
from rlhf.data.raw import RawRow, read_raw
from rlhf.errors import UserError
from rlhf.records import Messages


@dataclass(frozen=True, slots=True)
class Entry:
    """A conversation that ends with the answer to learn from and, for a preference, the one that ends with the worse.

    A conversation without any answer is (); `rejected` is None for a demonstration. `margin`, in reward units, is by how
    much the data say that the better one has to win.
    """

    place: str
    chosen: Messages
    rejected: Messages | None = None
    margin: float = 0.0

    @property
    def prompt(self) -> Messages:
        return self.chosen[:-1]


@dataclass(frozen=True, slots=True)
class Fields:
    """The values of one row by our names; a complaint names the row and the user's own column."""

    row: RawRow
    columns: Mapping[str, str]

    def value(self, name: str) -> Any:
        column = self.columns[name]
        if column not in self.row.values:
            raise UserError(f"{self.row.place}: field '{column}' is missing")
        return self.row.values[column]

    def turns(self, name: str, role: str) -> Messages:
        return read_turns(self.row.place, self.columns[name], self.value(name), role)

    def transcript(self, name: str) -> Messages:
        turns = read_transcript(self.row.place, self.columns[name], self.value(name))
        return with_joined_turns(to_last_answer(turns))

    def margin(self) -> float:
        """0 where the row has none; any row may have one, whatever the first one has."""
        column = self.columns.get("margin", "margin")
        return read_margin(self.row.place, column, self.row.values.get(column))


def read_entries(path: Path, source: Literal["files", "hh_rlhf"], columns: Mapping[str, str]) -> list[Entry]:
    """Every row of a file as an entry, in order; the first row's columns say which form the file has.

    Raises:
        UserError: the file, a row (with its line) or `data.columns` is wrong.
    """
    rows = read_raw(path)
    there = list(rows[0].values)
    named = name_columns(str(path), there, columns)
    form = "transcripts" if source == "hh_rlhf" else choose_form(str(path), there, named, columns)
    if form == "transcripts" and not {"chosen", "rejected"} <= named.keys():
        raise UserError(f"{path}: has no columns chosen and rejected, but {', '.join(there)}; data=files reads other forms")
    understand = UNDERSTAND[form]
    return [understand(Fields(row, named)) for row in rows]


def _transcripts(fields: Fields) -> Entry:
    return Entry(fields.row.place, fields.transcript("chosen"), fields.transcript("rejected"), fields.margin())


def _preference(fields: Fields) -> Entry:
    return Entry(fields.row.place, _answered(fields, "chosen"), _answered(fields, "rejected"), fields.margin())


def _conversation(fields: Fields) -> Entry:
    return Entry(fields.row.place, to_last_answer(fields.turns("messages", "user")))


def _demonstration(fields: Fields) -> Entry:
    return Entry(fields.row.place, _answered(fields, "completion"))


UNDERSTAND: dict[str, Callable[[Fields], Entry]] = {
    "transcripts": _transcripts,
    "preference": _preference,
    "conversation": _conversation,
    "demonstration": _demonstration,
}


def read_margin(place: str, column: str, value: Any) -> float:
    """A number of at least 0, or its text, as a CSV file has it; null and an empty cell are 0. UserError for all else."""
    if value is None or value == "":
        return 0.0
    try:
        margin = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        margin = math.nan
    if not 0 <= margin < math.inf:
        raise UserError(f"{place}: field '{column}' must be a finite number of at least 0, not {shown(value)}")
    return margin


def _answered(fields: Fields, name: str) -> Messages:
    """Prompt and answer; an answer that opens with a user's or a system turn is a whole conversation by itself."""
    answer = fields.turns(name, "assistant")
    if answer and answer[0].role != "assistant":
        return to_last_answer(answer)
    if "prompt" not in fields.columns:
        raise UserError(
            f"{fields.row.place}: field '{fields.columns[name]}' has no prompt before it: name the prompt's column with "
            f"data.columns.prompt (the columns are {', '.join(fields.row.values)}), or is this HH-RLHF (data=hh_rlhf)?"
        )
    return to_last_answer(_asked(fields) + answer)


def _asked(fields: Fields) -> Messages:
    """The prompt, with the `input` beneath its last turn where there is one (Alpaca's instruction and input)."""
    prompt = fields.turns("prompt", "user")
    given = fields.value("input") if "input" in fields.columns else None
    if not prompt or given is None:
        return prompt
    below = read_turns(fields.row.place, fields.columns["input"], given, "user")
    text = "\n".join(turn.content for turn in (prompt[-1], *below))
    return (*prompt[:-1], message(prompt[-1].role, text))
