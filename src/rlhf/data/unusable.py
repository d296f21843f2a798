"""Rows that cannot be learned from: why each is dropped, how many there are, and when there are too many.

Over-long rows are no matter of this file: only a tokenizer knows them, so each stage counts its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlhf.data.entries import Entry
from rlhf.errors import UserError
from rlhf.records import Messages

REASONS = (
    "no_answer",  # no assistant turn at all
    "different_prompts",  # chosen and rejected answer different prompts: nothing to compare
    "empty_prompt",
    "empty_response",  # on either side
    "identical_responses",
    "duplicate",  # all but the first of rows that are alike in prompt and responses
    "contradictory",  # A above B and B above A for one prompt: both rows go
)
Pair = tuple[Messages, str, str | None]


@dataclass(frozen=True, slots=True)
class Sorted:
    """The rows that are kept, in order, and the places of those that are not, by reason."""

    kept: list[Entry]
    dropped: dict[str, list[str]]

    @property
    def read(self) -> int:
        return len(self.kept) + sum(map(len, self.dropped.values()))


def sort_out(entries: Sequence[Entry]) -> Sorted:
    """Keeps what can be learned from; a row goes for the first reason that holds."""
    reasons = [_own_fault(entry) for entry in entries]
    reasons = _mark_duplicates(entries, reasons)
    reasons = _mark_contradictions(entries, reasons)
    judged = list(zip(entries, reasons, strict=True))
    dropped = {name: [entry.place for entry, reason in judged if reason == name] for name in REASONS}
    return Sorted([entry for entry, reason in judged if reason is None], dropped)


def refuse_too_many(path: str, found: Sorted, max_dropped_share: float) -> None:
    """UserError with the counts and the first place of each where more than this share of the rows is unusable."""
    dropped = found.read - len(found.kept)
    if dropped > max_dropped_share * found.read:
        counts = ", ".join(f"{name} {len(at)} (first {at[0]})" for name, at in found.dropped.items() if at)
        raise UserError(
            f"{path}: {dropped} of {found.read} rows cannot be used ({dropped / found.read:.3f}, above "
            f"prepare.max_dropped_share ({max_dropped_share})): {counts}; mend them, or raise prepare.max_dropped_share"
        )


def _own_fault(entry: Entry) -> str | None:
    sides = [side for side in (entry.chosen, entry.rejected) if side is not None]
    if not all(sides):
        return "no_answer"
    if any(side[:-1] != entry.prompt for side in sides):
        return "different_prompts"
    if not any(turn.content for turn in entry.prompt):
        return "empty_prompt"
    if not all(side[-1].content for side in sides):
        return "empty_response"
    return "identical_responses" if entry.chosen == entry.rejected else None


def _mark_duplicates(entries: Iterable[Entry], reasons: Iterable[str | None]) -> list[str | None]:
    seen: set[Pair] = set()
    marked: list[str | None] = []
    for entry, reason in zip(entries, reasons, strict=True):
        again = reason is None and _pair(entry) in seen
        marked.append("duplicate" if again else reason)
        if reason is None:
            seen.add(_pair(entry))
    return marked


def _mark_contradictions(entries: Sequence[Entry], reasons: Sequence[str | None]) -> list[str | None]:
    judged = list(zip(entries, reasons, strict=True))
    said = {_pair(entry) for entry, reason in judged if reason is None}
    return ["contradictory" if reason is None and _reversed(_pair(entry)) in said else reason for entry, reason in judged]


def _pair(entry: Entry) -> Pair:
    return entry.prompt, entry.chosen[-1].content, entry.rejected[-1].content if entry.rejected else None


def _reversed(pair: Pair) -> tuple[Messages, str | None, str | None]:
    prompt, chosen, rejected = pair
    return prompt, rejected, chosen
