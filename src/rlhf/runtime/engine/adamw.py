"""The optimizer of either back end, and the check before each of its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from rlhf import config
from rlhf.errors import UserError


def adamw(weights: Sequence[nn.Parameter], optimizer: config.Optimizer) -> torch.optim.Optimizer:
    """AdamW: torch's own, in one kernel where the weights are on a GPU; or with moments of 8 bits (Dettmers et al. 2022).

    Raises:
        UserError: 8 bits without bitsandbytes, or without a GPU.
    """
    on_gpu = all(weight.is_cuda for weight in weights)
    settings = {
        "betas": (optimizer.beta1, optimizer.beta2),
        "eps": optimizer.eps,
        "weight_decay": optimizer.weight_decay,
    }
    if optimizer.bits == 32:
        return torch.optim.AdamW(weights, fused=on_gpu or None, **settings)  # type: ignore[arg-type]
    if not on_gpu:
        raise UserError("optimizer.bits (8) needs a GPU: set optimizer.bits=32")
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UserError("optimizer.bits (8) needs the package bitsandbytes: pip install -e '.[gpu]'") from error
    made: torch.optim.Optimizer = AdamW8bit(weights, **settings)
    return made


def check_finite(norm: float, step: int) -> None:
    """UserError for the norm of a gradient that no step can be made of."""
    if not math.isfinite(norm):
        raise UserError(
            f"optimizer step {step}: the gradient's norm is {norm}. Lower the learning rate of this stage, or look for "
            "values that are not finite in its inputs"
        )
