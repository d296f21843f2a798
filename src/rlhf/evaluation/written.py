"""What a contest leaves for others to read and to compare with: every answer, and what the judges said of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.data.files import read_records
from rlhf.evaluation.answers import INDEPENDENT, SAMPLED, Answers, Contestant
from rlhf.evaluation.points import Marks
from rlhf.evaluation.raters import GOLD_FIGURES
from rlhf.evaluation.statistics import Floats
from rlhf.records import Messages, messages_from_row, messages_to_row

RESPONSES, POOL = "responses.jsonl", "sft_samples.jsonl"
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What every model answered to one prompt: decoding, then model, then text, length, scores and KL."""

    prompt: Messages
    answers: dict[str, dict[str, Row]]

    def to_row(self) -> Row:
        return {"prompt": messages_to_row(self.prompt)} | self.answers

    @classmethod
    def from_row(cls, row: Row) -> Comparison:
        return cls(messages_from_row(row["prompt"]), {key: value for key, value in row.items() if key != "prompt"})


@dataclass(frozen=True, slots=True)
class Samples:
    """What the judges said of many SFT answers to one prompt, in the order in which they were drawn."""

    prompt: Messages
    reward_score: list[float]
    judged: list[float]  # the gold score, or the reward model's where there is none
    tokens: list[int]
    ended: list[bool]

    def to_row(self) -> Row:
        said = {"reward_score": self.reward_score, "judged": self.judged, "tokens": self.tokens, "ended": self.ended}
        return {"prompt": messages_to_row(self.prompt)} | said

    @classmethod
    def from_row(cls, row: Row) -> Samples:
        prompt = messages_from_row(row["prompt"])
        return cls(prompt, row["reward_score"], row["judged"], row["tokens"], row["ended"])


def comparisons(prompts: Sequence[Messages], contestants: Sequence[Contestant]) -> list[Comparison]:
    """A record a prompt."""
    found: list[Comparison] = [Comparison(prompt, {}) for prompt in prompts]
    for contestant in contestants:
        drawn = [(contestant.decoding, contestant.answers)]
        drawn += [(INDEPENDENT, contestant.independent)] if contestant.independent else []
        for decoding, answers in drawn:
            for i, comparison in enumerate(found):
                comparison.answers.setdefault(decoding, {})[contestant.model] = _judged(answers, i)
    return found


def _judged(answers: Answers, i: int) -> Row:
    said = {"text": answers.texts[i], "ended": bool(answers.ended[i]), "tokens": int(answers.tokens[i])}
    kl = {} if answers.kl is None else {"kl": float(answers.kl[i])}
    return said | kl | {"reward_score": float(answers.rewards[i])} | {k: float(v[i]) for k, v in answers.gold.items()}


def samples(prompts: Sequence[Messages], pool: Sequence[Answers]) -> list[Samples]:
    """A record a prompt: what best-of-n chooses from, for any n up to the size of the pool."""

    def column(figure: Callable[[Answers], Floats]) -> Floats:
        return np.stack([figure(answers) for answers in pool], axis=1)

    rewards, judged = column(lambda a: a.rewards).tolist(), column(lambda a: a.judged).tolist()
    tokens, ended = column(lambda a: a.tokens).astype(int).tolist(), column(lambda a: a.ended).astype(bool).tolist()
    return [Samples(*entry) for entry in zip(prompts, rewards, judged, tokens, ended, strict=True)]


def read_answers(file: Path) -> tuple[list[Messages], dict[tuple[str, str], Answers]]:
    """The prompts of a file of comparisons, and the answers to them by (model, decoding)."""
    found = read_records(file, Comparison)
    keys = [(model, decoding) for decoding, models in found[0].answers.items() for model in models]
    return [c.prompt for c in found], {(m, d): _answers([c.answers[d][m] for c in found]) for m, d in keys}


def _answers(rows: Sequence[Row]) -> Answers:
    def column(name: str) -> Floats:
        return np.array([row[name] for row in rows], dtype=np.float64)

    return Answers(
        texts=[row["text"] for row in rows],
        ended=column("ended"),
        tokens=column("tokens"),
        rewards=column("reward_score"),
        kl=column("kl") if "kl" in rows[0] else None,
        gold={name: column(name) for name in GOLD_FIGURES if name in rows[0]},
    )


def marks_in(answers: Mapping[tuple[str, str], Answers], model: str, bound: float | None = None) -> Marks:
    """A model's sampled answers as marks; `bound` is its KL where it has no log-probabilities of its own."""
    independent = answers.get((model, INDEPENDENT))
    return marks_of(answers[model, SAMPLED], independent, bound)


def marks_of(answers: Answers, independent: Answers | None = None, bound: float | None = None) -> Marks:
    kl = np.full(len(answers.texts), bound, dtype=np.float64) if answers.kl is None else answers.kl
    return Marks(
        judged=answers.judged,
        reward=answers.rewards,
        kl=kl,
        tokens=answers.tokens,
        ended=answers.ended,
        rivals=independent.judged if independent else None,
        rival_tokens=independent.tokens if independent else None,
    )
