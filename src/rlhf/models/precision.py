"""In which precision a model computes: that of its weights.

One precision for all that a model does, so that sampling, scoring and learning cannot disagree on it. What learns in
bfloat16 has float32 masters of its weights beside them, which are the engine's. (DeepSpeed casts all it is given: under
ZeRO a scalar head and an adapter compute in bfloat16 as well.)
"""

from __future__ import annotations

import torch
from torch import nn

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def compute_in(model: nn.Module, precision: str) -> None:
    """From now on the model's passes are in this precision; a scalar head's in float32: a score is one number, and its last
    bits decide pairs."""
    model.to(DTYPES[precision])
    head = getattr(model, "score", None)
    if isinstance(head, nn.Module):
        head.float()
