"""What the first stage leaves, whatever it was made from, and what is said about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.config import Config
from rlhf.data.files import write_documents, write_records
from rlhf.data.splits import refuse_leaking_documents, refuse_leaks
from rlhf.data.words import words
from rlhf.errors import UserError
from rlhf.records import SPLITS, Demonstration, Preference, Prompt, Ranking

PERCENT = range(0, 101, 5)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything the later stages read, and the counts of the rows it came from.

    What people preferred are `preferences`, or all of it `rankings` where any of it ties or is of more than two responses.
    """

    demonstrations: list[Demonstration]
    prompts: list[Prompt]
    preferences: list[Preference]
    documents: list[str]
    rows: dict[str, Any]
    rankings: list[Ranking] = field(default_factory=list)


def check(prepared: Prepared, config: Config) -> None:
    """UserError if a prompt is in two splits or, in the world, in a document; or if a split, each needed later, is empty."""
    refuse_leaks((*prepared.demonstrations, *prepared.prompts, *prepared.preferences, *prepared.rankings))
    if config.data.source == "world":
        held_out = [prompt.prompt[-1].content for prompt in prepared.prompts if prompt.split != "train"]
        refuse_leaking_documents(prepared.documents, held_out)
    counts = _per_split(prepared.prompts)
    for split in SPLITS:
        if not counts[split]:
            raise UserError(
                f"none of the {len(prepared.prompts)} prompts is in the {split} split: give more data, or change "
                f"prepare.test_share ({config.prepare.test_share}) and "
                f"prepare.validation_share ({config.prepare.validation_share})"
            )


def write(prepared: Prepared, folder: Path) -> None:
    write_records(folder / "demonstrations.jsonl", prepared.demonstrations)
    write_records(folder / "prompts.jsonl", prepared.prompts)
    write_records(folder / "preferences.jsonl", prepared.preferences)
    if prepared.rankings:
        write_records(folder / "rankings.jsonl", prepared.rankings)
    write_documents(folder / "corpus.jsonl", prepared.documents)


def counts(prepared: Prepared) -> dict[str, Any]:
    """How many rows were read, kept and dropped and why, and what came of them, per split."""
    ranked = {"rankings": _per_split(prepared.rankings)} if prepared.rankings else {}
    return (
        prepared.rows
        | ranked
        | {
            "demonstrations": _per_split(prepared.demonstrations),
            "prompts": _per_split(prepared.prompts),
            "preferences": _per_split(prepared.preferences),
            "documents": len(prepared.documents),
        }
    )


def length_curve(prepared: Prepared) -> list[dict[str, float]]:
    """Words a prompt and a response have: at step q, q percent of them have at most so many."""
    prompts = sorted(_words(*(turn.content for turn in prompt.prompt)) for prompt in prepared.prompts)
    responses = sorted(_words(demonstration.completion) for demonstration in prepared.demonstrations)
    return [{"step": q, "prompt_words": _quantile(prompts, q), "response_words": _quantile(responses, q)} for q in PERCENT]


def _per_split(records: Sequence[Demonstration | Prompt | Preference | Ranking]) -> dict[str, int]:
    return {split: sum(record.split == split for record in records) for split in SPLITS}


def _words(*texts: str) -> int:
    return sum(len(words(text)) for text in texts)


def _quantile(ordered: Sequence[int], percent: int) -> int:
    """The nearest-rank quantile of sorted numbers: one of them, never a number between two."""
    rank = max(1, -(-percent * len(ordered) // 100))
    return ordered[rank - 1] if ordered else 0
