"""Statistics over the real tokens of a batch, whatever the rest of the tensor holds.

One rule for precision in all of `rlhf.maths`: float32 and float64 stay what they are, anything narrower is computed
and returned in float32, because a mean rounded to bfloat16 keeps three digits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf.maths.checks import refuse_bad_tokens

VARIANCE_FLOOR = 1e-8  # lm-human-preferences' own
ROUNDINGS = 16  # of the numbers' own precision: a standard deviation of no more is what rounding makes of equal numbers


def at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def keep_real(x: Tensor, mask: Tensor) -> Tensor:
    """`x` in at least float32, exactly 0 where masked, with gradient exactly 0 there.

    A multiplication would not do: NaN * 0 is NaN, forwards and backwards.
    """
    x = at_least_float32(x)
    return torch.where(mask, x, torch.zeros_like(x))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x (any shape) over the positions where mask (same shape, bool) is True; a scalar in x's unit.

    Raises ValueError for unequal shapes, a row without a real position, and NaN in a real position.
    """
    refuse_bad_tokens(mask, "mask", x=x)
    return keep_real(x, mask).sum() / mask.sum()


def masked_variance(x: Tensor, mask: Tensor) -> Tensor:
    """Population variance (divided by the count, not the count less one) over the mask; a scalar. Errors as masked_mean."""
    return masked_mean(_centred(x, mask).square(), mask)


def only_rounding(variance: Tensor, mean_square: Tensor) -> Tensor:
    """True where a variance is so small beside the mean square of the same numbers that they may all be equal."""
    return variance <= (ROUNDINGS * torch.finfo(variance.dtype).eps) ** 2 * mean_square


def masked_whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale x (any shape) to mean 0 and population standard deviation 1 over the mask; 0 where masked.

    Call it once on a whole rollout: whitening by minibatch gives the same token another advantage in each epoch.
    A constant x becomes 0. Errors as masked_mean. Source: lm-human-preferences `whiten`, here with a mask.
    """
    variance = masked_variance(x, mask)
    white = _centred(x, mask) * torch.rsqrt(variance + VARIANCE_FLOOR)
    constant = only_rounding(variance, masked_mean(keep_real(x, mask).square(), mask))
    return torch.where(constant, torch.zeros_like(white), white)


def _centred(x: Tensor, mask: Tensor) -> Tensor:
    return keep_real(at_least_float32(x) - masked_mean(x, mask), mask)
