"""Plain gradient descent in both, so that a difference in weights is a difference in gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

RATE = 1.0  # what a step moves is then the gradient itself
SAME = 1e-5  # what float32 and another order of summation leave
# So large an epsilon and no momentum make AdamW plain gradient descent at its own rate / epsilon.
EPSILON = 1e8
ADAMW = {"eps": EPSILON, "beta1": 1e-12, "max_grad_norm": 1e9}

# What a run of any of their trainers has to be told: float32, on the CPU, without reports, files or messages.
QUIET: dict[str, Any] = {
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
    "eval_strategy": "no",
}
ONE_STEP: dict[str, Any] = QUIET | {"max_steps": 1, "max_grad_norm": 0.0, "logging_strategy": "no"}


def their_descent(parameters: Iterable[nn.Parameter], rate: float = RATE) -> tuple[torch.optim.Optimizer, LambdaLR]:
    descent = torch.optim.SGD(parameters, lr=rate)
    return descent, LambdaLR(descent, lambda _: 1.0)
