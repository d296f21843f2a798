"""What policies answered to the held-out prompts, and what the judges say of each answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf.evaluation.statistics import Floats

SAMPLED, GREEDY, INDEPENDENT = "sampled", "greedy", "independent"
SFT = "sft"
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answers:
    """One answer to each of N prompts. Arrays are (N,)."""

    texts: list[str]
    ended: Floats  # 1 or 0
    tokens: Floats  # response tokens, end token included
    rewards: Floats  # the reward model's scores
    kl: Floats | None  # signed log π − log π_SFT, nats a response; None where π has no log-probabilities of its own
    gold: dict[str, Floats]  # gold_score, and what else the rater knows of GOLD_FIGURES; empty without a rater

    @property
    def judged(self) -> Floats:
        """(N,) what a win is decided by: the gold score, or the reward model's where there is none."""
        return self.gold.get("gold_score", self.rewards)


@dataclass(frozen=True, slots=True)
class Contestant:
    """A model under one way of decoding: the answers it gave, and the figures of them.

    independent: sampled answers with random numbers of this model's own, for the tournament; the models share those of
    `answers`, and two that share random numbers say the same wherever they agree.
    """

    model: str
    decoding: str
    answers: Answers
    figures: Figures
    independent: Answers | None = None


def best_of(pool: Sequence[Answers]) -> Answers:
    """To each prompt, of several answers the one that the reward model likes best (the first of equals)."""
    best = np.stack([answers.rewards for answers in pool]).argmax(0)
    prompts = np.arange(len(best))

    def picked(name: Callable[[Answers], Floats]) -> Floats:
        return np.stack([name(answers) for answers in pool])[best, prompts]

    return Answers(
        texts=[pool[which].texts[i] for i, which in enumerate(best)],
        ended=picked(lambda answers: answers.ended),
        tokens=picked(lambda answers: answers.tokens),
        rewards=picked(lambda answers: answers.rewards),
        kl=None,
        gold={key: picked(lambda answers, key=key: answers.gold[key]) for key in pool[0].gold},  # type: ignore[misc]
    )
