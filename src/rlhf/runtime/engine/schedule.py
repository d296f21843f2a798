"""How large the steps are."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate(
    step: int,
    steps: int,
    lr: float,
    warmup_share: float,
    final_lr_share: float,
    schedule: Literal["linear", "cosine", "constant"],
) -> float:
    """The rate of step 0, 1, …: linear from lr / warm-up steps to lr, then by the schedule to final_lr_share * lr."""
    warmup = math.ceil(warmup_share * steps)
    if step < warmup:
        return lr * (step + 1) / warmup
    left = (steps - 1 - step) / max(steps - 1 - warmup, 1)
    match schedule:
        case "linear":
            height = max(left, 0.0)
        case "cosine":
            height = (1 - math.cos(math.pi * max(left, 0.0))) / 2
        case "constant":
            height = 1.0
    return lr * (final_lr_share + (1 - final_lr_share) * height)
