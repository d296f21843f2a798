"""What the maths refuses: every message names the argument and its value.

Only NaN in a real position, shapes and bounds are refused here; infinities are the training loop's to find, which
tests for them before it calls.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def refuse_unequal_shapes(**tensors: Tensor) -> None:
    """No argument is broadcast against another: a (B, 1) beside a (B,) would silently become (B, B)."""
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"shapes must be equal: {shapes}")


def refuse_other_dimensions(letters: str, **tensors: Tensor) -> None:
    """`letters` names the dimensions, one letter each, such as "BR" for (B, R); none of them may be empty."""
    for name, tensor in tensors.items():
        if tensor.dim() != len(letters) or tensor.numel() == 0:
            raise ValueError(f"{name} must be ({', '.join(letters)}) and not empty, not {tuple(tensor.shape)}")


def refuse_nan(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        nan = torch.isnan(tensor)
        if bool(nan.any()):
            raise ValueError(f"{name} is NaN at {tuple(nan.nonzero()[0].tolist())}")


def refuse_bad_mask(name: str, mask: Tensor) -> None:
    """A mask is bool, True on real tokens, with at least one of them in each row."""
    if mask.dtype != torch.bool:
        raise ValueError(f"{name} must be a bool tensor (True = real token), not {mask.dtype}")
    if mask.numel() == 0:
        raise ValueError(f"{name} must not be empty, its shape is {tuple(mask.shape)}")
    empty = ~mask.any(dim=-1)
    if bool(empty.any()):
        raise ValueError(f"{name} {tuple(mask.shape)} has no real token in row {empty.reshape(-1).nonzero()[0].item()}")


def refuse_bad_tokens(mask: Tensor, mask_name: str = "response_mask", **tensors: Tensor) -> None:
    """Per-token arguments and their mask: one shape, a sound mask, no NaN where it is True."""
    refuse_unequal_shapes(**tensors, **{mask_name: mask})
    refuse_bad_mask(mask_name, mask)
    refuse_nan(**{name: tensor.detach().masked_fill(~mask, 0) for name, tensor in tensors.items()})


def refuse_outside(name: str, value: float, low: float, high: float, open_ends: bool = False) -> None:
    """NaN is outside of everything. `open_ends` refuses the bounds themselves."""
    inside = low < value < high if open_ends else low <= value <= high
    if not inside:
        low_end, high_end = "()" if open_ends else "[]"
        raise ValueError(f"{name} ({value}) must be in {low_end}{low}, {high}{high_end}")


def refuse_negative(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} ({value}) must be finite and not negative")


def refuse_not_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} ({value}) must be positive and finite")
