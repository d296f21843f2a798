"""Rows that cannot be learned from: why each is dropped, how many there are, and when there are too many.

Over-long rows are no matter of this file: only a tokenizer knows them, so each stage counts its own.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rlhf.data.entries import Entry
from rlhf.data.splits import key_of
from rlhf.errors import UserError
from rlhf.records import messages_to_row, untied_pairs

REASONS = (
    "no_answer",  # no assistant turn at all
    "different_prompts",  # the answers are to different prompts: nothing to compare
    "empty_prompt",
    "empty_response",  # of any answer
    "identical_responses",
    "duplicate",  # all but the first of rows that are alike in prompt, responses and their order
    "contradictory",  # A above B and B above A for one prompt: both rows go
)
DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Survey:
    """Of each row, in order, why it is dropped (None: it is kept) and a digest of its prompt's key; nothing of its text."""

    reasons: list[str | None]
    prompts: list[bytes]

    def kept_prompts(self) -> list[bytes]:
        """Every prompt that a kept row has, once, in the order of the rows."""
        kept = zip(self.prompts, self.reasons, strict=True)
        return list(dict.fromkeys(prompt for prompt, reason in kept if reason is None))

    def dropped(self) -> dict[str, int]:
        """Of each reason how many; of those that only some sources know where there are any."""
        return dict.fromkeys(REASONS, 0) | Counter(reason for reason in self.reasons if reason)


def survey(entries: Iterable[Entry]) -> Survey:
    """Goes through the rows once; a row goes for the first reason that holds."""
    reasons: list[str | None] = []
    prompts: list[bytes] = []
    against: list[tuple[bytes, ...]] = []
    seen: set[bytes] = set()
    said: set[bytes] = set()
    for entry in entries:
        reason = _own_fault(entry)
        pairs: list[tuple[str, str]] = []
        if reason is None:
            pairs = [(entry.answers[i], entry.answers[j]) for i, j in untied_pairs(entry.ranks)]
            whole = _digest(entry, *entry.answers, *map(str, entry.ranks))
            reason = "duplicate" if whole in seen else None
            seen.add(whole)
        said.update(_digest(entry, better, worse) for better, worse in pairs)
        reasons.append(reason)
        against.append(tuple(_digest(entry, worse, better) for better, worse in pairs))
        prompts.append(b"" if reason else _digest_of(key_of(entry.prompt)))
    denied = (any(pair in said for pair in pairs) for pairs in against)
    judged = zip(reasons, denied, strict=True)
    return Survey(["contradictory" if deny and reason is None else reason for reason, deny in judged], prompts)


def kept(entries: Iterable[Entry], found: Survey, prompts: Iterable[bytes]) -> Iterator[Entry]:
    """The entries that are kept, of these prompts."""
    wanted = set(prompts)
    for entry, reason, prompt in zip(entries, found.reasons, found.prompts, strict=True):
        if reason is None and prompt in wanted:
            yield entry


def refuse_too_many(path: str, entries: Iterable[Entry], found: Survey, max_dropped_share: float, mend: str) -> None:
    """UserError with the counts, the first place of each and what to do where more than this share of the rows is
    unusable."""
    counts = {reason: count for reason, count in found.dropped().items() if count}
    dropped, read = sum(counts.values()), len(found.reasons)
    if dropped > max_dropped_share * read:
        first: dict[str | None, str] = {}
        for entry, reason in zip(entries, found.reasons, strict=True):
            first.setdefault(reason, entry.place)
        said = ", ".join(f"{name} {count} (first {first[name]})" for name, count in counts.items())
        raise UserError(
            f"{path}: {dropped} of {read} rows cannot be used ({dropped / read:.3f}, above prepare.max_dropped_share "
            f"({max_dropped_share})): {said}; {mend}, or raise prepare.max_dropped_share"
        )


def _own_fault(entry: Entry) -> str | None:
    if entry.fault is not None:
        return entry.fault
    if not entry.sides or not all(entry.sides):
        return "no_answer"
    if any(side[:-1] != entry.prompt for side in entry.sides):
        return "different_prompts"
    if not any(turn.content for turn in entry.prompt):
        return "empty_prompt"
    if not all(entry.answers):
        return "empty_response"
    return "identical_responses" if len(entry.sides) > 1 and len(set(entry.answers)) == 1 else None


def _digest(entry: Entry, *texts: str) -> bytes:
    return _digest_of(json.dumps([messages_to_row(entry.prompt), *texts]))


def _digest_of(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()
