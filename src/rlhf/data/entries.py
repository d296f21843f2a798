"""Rows of the user's files understood as whole conversations, in the ecosystem's forms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from rlhf.config import Data
from rlhf.data.columns import Form, form_of, name_columns
from rlhf.data.conversations import (
    message,
    read_history,
    read_transcript,
    read_turns,
    to_last_answer,
    with_joined_turns,
)
from rlhf.data.files import shown
from rlhf.data.raw import RawRow, read_raw
from rlhf.data.values import read_margin, read_number, read_text
from rlhf.errors import UserError
from rlhf.records import Messages


@dataclass(frozen=True, slots=True)
class Entry:
    """Conversations that end with answers to one prompt, the best first, and the answers' ranks: equal ranks tie.

    One is a demonstration, two of unequal rank are a preference. A conversation without any answer is (). `margin`, in
    reward units, is by how much the data say that the better one of two has to win. `fault` is why it cannot be used, where
    that shows in nothing else.
    """

    place: str
    sides: tuple[Messages, ...]
    ranks: tuple[int, ...] = (0,)
    margin: float = 0.0
    fault: str | None = None

    @property
    def prompt(self) -> Messages:
        return self.sides[0][:-1]

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(side[-1].content for side in self.sides)


def in_order(place: str, sides: Sequence[Messages], ranks: Sequence[int], margin: float = 0.0) -> Entry:
    """The entry of sides in any order."""
    order = sorted(range(len(sides)), key=lambda i: ranks[i])
    return Entry(place, tuple(sides[i] for i in order), tuple(ranks[i] for i in order), margin)


def ranks_of(scores: Sequence[float]) -> list[int]:
    """0 for the highest score, 1 for the next lower one, …; equal scores tie."""
    levels = sorted(set(scores), reverse=True)
    return [levels.index(score) for score in scores]


@dataclass(frozen=True, slots=True)
class Fields:
    """The values of one row by our names; a complaint names the row and the user's own column. What the row's entry leaves
    out of it is counted in `unused`."""

    row: RawRow
    columns: Mapping[str, str]
    margin_per_score: float
    unused: Counter[str]

    def value(self, name: str) -> Any:
        column = self.columns.get(name, name)
        if column not in self.row.values:
            raise UserError(f"{self.row.place}: field '{column}' is missing")
        return self.row.values[column]

    def turns(self, name: str, role: str) -> Messages:
        return read_turns(self.row.place, self.columns.get(name, name), self.value(name), role)

    def after_opening(self, turns: Messages) -> Messages:
        """Behind what the row says before them: a `system` turn, unless they open with one, and Alpaca's `history`."""
        place = self.row.place
        system, history = (self.row.values.get(self.columns.get(name, "")) for name in ("system", "history"))
        said = read_text(place, self.columns["system"], system) if system is not None else ""
        own = turns[:1] if turns and turns[0].role == "system" else ()
        opening = own or ((message("system", said),) if said.strip() else ())
        return (*opening, *read_history(place, self.columns.get("history", ""), history), *turns[len(own) :])

    def transcript(self, name: str) -> Messages:
        turns = read_transcript(self.row.place, self.columns[name], self.value(name))
        return with_joined_turns(to_last_answer(turns))

    def number(self, column: str) -> float | None:
        """None where the row has none; any row may have one, whatever the first one has."""
        return read_number(self.row.place, column, self.row.values.get(column))

    def margin(self) -> float:
        column = self.columns.get("margin", "margin")
        return read_margin(self.row.place, column, self.row.values.get(column))


def read_entries(path: Path, data: Data, unused: Counter[str]) -> Iterator[Entry]:
    """Every row of a file as an entry, in order; the first row's columns say which form the file has.

    unused: to count completions in that their entries leave out.

    Raises:
        UserError: the file, a row (with its line) or `data.columns` is wrong.
    """
    rows = read_raw(path)
    first = next(rows)
    there = list(first.values)
    named = name_columns(str(path), there, data)
    understand = UNDERSTAND[form_of(str(path), there, named, data)]
    for row in chain([first], rows):
        yield understand(Fields(row, named, data.margin_per_score, unused))


def _transcripts(fields: Fields) -> Entry:
    """HH-RLHF."""
    return Entry(fields.row.place, (fields.transcript("chosen"), fields.transcript("rejected")), (0, 1), fields.margin())


def _preference(fields: Fields) -> Entry:
    return Entry(fields.row.place, (_answered(fields, "chosen"), _answered(fields, "rejected")), (0, 1), fields.margin())


def _conversation(fields: Fields) -> Entry:
    return Entry(fields.row.place, (to_last_answer(fields.after_opening(fields.turns("messages", "user"))),))


def _demonstration(fields: Fields) -> Entry:
    return Entry(fields.row.place, (_answered(fields, "completion"),))


def _scored_pair(fields: Fields) -> Entry:
    """UltraFeedback, binarized: what is called chosen is no better where the scores are equal."""
    pair = _preference(fields)
    chosen, rejected = fields.number("score_chosen"), fields.number("score_rejected")
    if chosen is None or rejected is None:
        return pair
    margin = pair.margin or fields.margin_per_score * max(chosen - rejected, 0.0)
    return Entry(pair.place, pair.sides, (0, 0) if chosen == rejected else (0, 1), margin)


def _completions(fields: Fields) -> Entry:
    """UltraFeedback: the completions with a score, ranked by it."""
    place, prompt = fields.row.place, fields.turns("prompt", "user")
    completions = _listed(fields, "completions")
    sides, scores = [], []
    for i, completion in enumerate(completions):
        score = read_number(place, f"completions[{i}].overall_score", completion.get("overall_score"))
        if score is not None:
            answer = read_text(place, f"completions[{i}].response", completion.get("response"))
            sides.append((*prompt, message("assistant", answer)))
            scores.append(score)
    fields.unused["unscored"] += len(completions) - len(scores)
    gap = abs(scores[0] - scores[1]) if len(scores) == 2 else 0.0
    return in_order(place, sides, ranks_of(scores), fields.margin_per_score * gap)


def _votes(fields: Fields) -> Entry:
    """SHP: `labels` is 1 where A is preferred and 0 where B is; without it more votes are better."""
    place, prompt = fields.row.place, fields.turns("prompt", "user")
    sides = [_after(prompt, fields.turns(name, "assistant")) for name in ("human_ref_A", "human_ref_B")]
    votes = [number for name in ("score_A", "score_B") if (number := fields.number(name)) is not None]
    label, ratio = fields.number("labels"), fields.number("score_ratio")
    if label not in (0, 1, None):
        raise UserError(f"{place}: field 'labels' must be 1 (A is preferred) or 0 (B is), not {shown(label)}")
    if label is None and len(votes) < 2:
        raise UserError(f"{place}: has neither field 'labels' nor both of 'score_A' and 'score_B': which is preferred?")
    if ratio is not None and ratio <= 0:
        raise UserError(f"{place}: field 'score_ratio' must be above 0, not {shown(ratio)}")
    ranks = ranks_of(votes) if label is None else [1 - int(label), int(label)]
    gap = abs(votes[0] - votes[1]) if len(votes) == 2 else 0.0
    gap = abs(math.log(ratio)) if ratio is not None else gap
    return in_order(place, sides, ranks, fields.margin_per_score * gap if ranks[0] != ranks[1] else 0.0)


UNDERSTAND: dict[Form, Callable[[Fields], Entry]] = {
    "transcripts": _transcripts,
    "preference": _preference,
    "conversation": _conversation,
    "demonstration": _demonstration,
    "scored_pair": _scored_pair,
    "completions": _completions,
    "votes": _votes,
}


def _listed(fields: Fields, name: str) -> list[dict[str, Any]]:
    items = fields.value(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UserError(f"{fields.row.place}: field '{name}' must be a list of objects like {{…}}, not {shown(items)}")
    return items


def _answered(fields: Fields, name: str) -> Messages:
    """Prompt and answer; an answer that opens with a user's or a system turn is a whole conversation by itself."""
    answer = fields.turns(name, "assistant")
    if answer and answer[0].role != "assistant":
        return to_last_answer(fields.after_opening(answer))
    if "prompt" not in fields.columns:
        raise UserError(
            f"{fields.row.place}: field '{fields.columns[name]}' has no prompt before it: name the prompt's column with "
            f"data.columns.prompt (the columns are {', '.join(fields.row.values)}), or is this HH-RLHF (data=hh_rlhf)?"
        )
    return _after(_asked(fields), answer)


def _after(prompt: Messages, answer: Messages) -> Messages:
    """The conversation; () where nothing answers, for an earlier answer in the prompt is none to it."""
    return to_last_answer(prompt + answer) if answer else ()


def _asked(fields: Fields) -> Messages:
    """The prompt behind what opens the row, with the `input` beneath its last turn where there is one (Alpaca's instruction
    and input)."""
    prompt = fields.turns("prompt", "user")
    given = fields.row.values.get(fields.columns.get("input", ""))
    if prompt and given is not None:
        below = read_turns(fields.row.place, fields.columns["input"], given, "user")
        text = "\n".join(turn.content for turn in (prompt[-1], *below))
        prompt = (*prompt[:-1], message(prompt[-1].role, text))
    return fields.after_opening(prompt)
