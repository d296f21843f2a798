"""How the supervised loops (SFT, reward model, DPO) go over their rows, and all that changes while they do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rlhf.records import Preference
from rlhf.runtime.engine import Engine
from rlhf.seeds import draw_rows


@dataclass(frozen=True, slots=True)
class Said:
    """The answers to the shown prompts after so many steps, with their scores; of plain numbers, to be saved as they are."""

    step: int
    answers: list[list[int]]
    scores: dict[str, list[float]]


@dataclass
class LoopState:
    """The whole state of such a loop: what step it is at says which rows come next.

    said: what the policy answered on the way, where somebody asked. A loop in rounds also has the round that it is in (from
    1), the step at which that began, the preferences it learns from, and counts of what all rounds so far learnt from.
    """

    engine: Engine
    step: int = 0
    said: list[Said] = field(default_factory=list)
    round: int = 0
    first: int = 0
    preferences: Sequence[Preference] = ()
    learnt: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """Steps in this round."""
        return self.step - self.first

    def state_dict(self) -> dict[str, Any]:
        return {
            "engine": self.engine.state_dict(),
            "step": self.step,
            "said": [asdict(then) for then in self.said],
            "round": self.round,
            "first": self.first,
            "preferences": [preference.to_row() for preference in self.preferences],
            "learnt": dict(self.learnt),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.engine.load_state_dict(state["engine"])
        self.step = state["step"]
        self.said = [Said(**then) for then in state["said"]]
        self.round, self.first = state["round"], state["first"]
        self.preferences = [Preference.from_row(row) for row in state["preferences"]]
        self.learnt = Counter(state["learnt"])


@dataclass(frozen=True, slots=True)
class Passes:
    """So many passes over the rows, each row once a pass and every pass in an order of its own."""

    epochs: int
    rows_per_step: int
    eval_every_steps: int
    seed: int

    def steps(self, rows: int) -> int:
        """How many steps they take; the last one takes what is left."""
        return math.ceil(rows * self.epochs / self.rows_per_step)

    def draw(self, rows: int, step: int) -> list[int]:
        """The places of the rows that step 0, 1, … learns from."""
        start = step * self.rows_per_step
        return draw_rows(rows, self.seed, start, min(self.rows_per_step, rows * self.epochs - start))

    def evaluates(self, rows: int, steps_done: int) -> bool:
        """Whether to look at the validation rows now: every so often and at the end."""
        return steps_done % self.eval_every_steps == 0 or steps_done == self.steps(rows)
