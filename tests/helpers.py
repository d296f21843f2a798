"""The tolerance of the tests, in one place, and small tensors to read at a glance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NAN = float("nan")


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
