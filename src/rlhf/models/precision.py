"""In which precision a model computes. Its weights are float32 always: AdamW's steps are too small for a bfloat16 weight.

Which one it is goes with the model, so that sampling, scoring and learning cannot disagree on it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn


def compute_in(model: nn.Module, precision: str) -> None:
    """From now on the model's forward passes are in this precision."""
    model.compute_bfloat16 = precision == "bfloat16"  # type: ignore[assignment]


def precision_of(model: nn.Module) -> AbstractContextManager[object]:
    """Within it a forward pass of the model is in the model's own precision."""
    device = next(model.parameters()).device
    return torch.autocast(device.type, torch.bfloat16, enabled=bool(getattr(model, "compute_bfloat16", False)))
