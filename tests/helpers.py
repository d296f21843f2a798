"""The tolerance of the tests, in one place, and small tensors to read at a glance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NAN = float("nan")

# How far apart two passes of one model over the same tokens may be where their shapes differ (other rows beside, other
# padding, a cache): a kernel may then add in another order. Of log-probabilities and so of ratios, of values and scores
# near 1. float32 keeps 2^-24 of a number, and some ten operations of a few terms lose less than 100 times that; bfloat16
# keeps 2^-9, and one number rounded the other way somewhere is 2^-8. In the same shapes they are equal to the bit.
ROUNDING = {"float32": 1e-5, "bfloat16": 1e-2}
# The same of a loss or the norm of a gradient: errors of a step's tokens add up.
SUMMED = {"float32": 1e-4, "bfloat16": 1e-2}


def assert_near(actual: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """Equal in shape, and to `tolerance`: absolute up to 1, relative above."""
    left, right = (torch.as_tensor(x, dtype=torch.float64, device="cpu").detach() for x in (actual, expected))
    assert left.shape == right.shape, f"shape {tuple(left.shape)}, expected {tuple(right.shape)}"
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


def float64(rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def lengths_to_mask(lengths: list[int], width: int | None = None) -> Tensor:
    """(B, R), right-padded: row i has lengths[i] real tokens."""
    width = max(lengths) if width is None else width
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)
