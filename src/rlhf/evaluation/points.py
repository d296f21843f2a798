"""What is compared: points, each a method under one setting, by what its answers to the same prompts were worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rlhf.evaluation.statistics import Floats

BEST_OF_N = "best_of_n"


@dataclass(frozen=True, slots=True)
class Marks:
    """What one policy's sampled answers to the N prompts of the exam were worth. Arrays are (N,).

    rivals, rival_tokens: what another sampled answer got, drawn with random numbers of this policy's own, and its length:
    answers that share random numbers agree too often to be set against each other. None where no such answer was drawn.
    """

    judged: Floats  # the gold score, or the reward model's where there is none
    reward: Floats
    kl: Floats  # signed log π − log π_SFT, nats a response; of best-of-n its bound
    tokens: Floats
    ended: Floats  # 1 or 0
    rivals: Floats | None = None
    rival_tokens: Floats | None = None
    won: Floats | None = None  # of best-of-n the chance to win against SFT's independent answer: judged is a mean of many


@dataclass(frozen=True, slots=True)
class Point:
    """A method under one setting, and the marks of its runs by seed."""

    method: str  # base, sft, best_of_n, ppo or dpo
    setting: Mapping[str, str] = field(default_factory=dict)  # what makes it this point, by dotted names
    runs: Mapping[int, Marks] = field(default_factory=dict)

    def over_seeds(self, figure: str) -> Floats:
        """(S, N) of one of the marks: a row a seed."""
        return np.stack([getattr(marks, figure) for marks in self.runs.values()])
