"""How the supervised loops (SFT, reward model, DPO) go over their rows, and all that changes while they do."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from rlhf.runtime.engine import Engine
from rlhf.seeds import draw_rows
from rlhf.training.samples import Said


@dataclass
class LoopState:
    """The whole state of such a loop: what step it is at says which rows come next.

    first: the step at which the rows of this round came in; 0 where there is one round. said: what the policy answered on
    the way, where somebody asked.
    """

    engine: Engine
    step: int = 0
    first: int = 0
    said: list[Said] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Steps on these rows."""
        return self.step - self.first


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
