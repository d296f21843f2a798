"""How far a policy has moved from its reference: three estimators on samples, and two ways to price it (SPEC eq. 5, 7).

The estimators are of KL(policy || reference), on tokens that the policy sampled; see John Schulman, "Approximating KL
Divergence" (2020). k1 is unbiased and signed; only its expectation cannot be negative, so it is never clamped. k2 is
biased with little variance. k3 is unbiased and never negative. As a *loss* on the policy's own samples they differ: the
gradient of k1 is 0 in expectation, that of k2 is the gradient of KL(policy || reference), that of k3 of the other
direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.maths.checks import refuse_negative, refuse_not_positive, refuse_unequal_shapes
from rlhf.maths.masked import at_least_float32

MOST_RELATIVE_ERROR = 0.2  # lm-human-preferences: one batch moves kl_ctl by at most 20 % per horizon of responses


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """log policy - log reference, in nats, of the arguments' common shape (SPEC eq. 5).

    These three take no mask: NaN on padding passes through, to be masked afterwards. Raises ValueError for unequal shapes.
    """
    refuse_unequal_shapes(logprobs=logprobs, ref_logprobs=ref_logprobs)
    return at_least_float32(logprobs) - at_least_float32(ref_logprobs)


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Half the square of k1, in nats squared; the estimator to use as a loss (SPEC eq. 5). Shapes and errors as k1."""
    return _without_gradient_where_not_finite(lambda x: x.square() / 2, k1(logprobs, ref_logprobs))


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """exp(-k1) - 1 + k1, in nats, never negative (SPEC eq. 5). Shapes and errors as k1."""
    return _without_gradient_where_not_finite(lambda x: torch.expm1(-x) + x, k1(logprobs, ref_logprobs))


def _without_gradient_where_not_finite(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """So that a mask applied to the result leaves a gradient of 0 on padding, and not 0 * inf."""
    value = function(x.detach())
    finite = value.isfinite()
    return torch.where(finite, function(torch.where(finite, x, torch.zeros_like(x))), value)


@dataclass
class FixedKL:
    """A KL coefficient that stays what it is, in reward per nat."""

    kl_ctl: float

    def __post_init__(self) -> None:
        refuse_negative("kl_ctl", self.kl_ctl)

    def update(self, kl_per_response: float, responses: int) -> None:
        """Nothing moves; the signature is AdaptiveKL's."""

    def state_dict(self) -> dict[str, float]:
        return {"kl_ctl": self.kl_ctl}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.kl_ctl = _kl_ctl_of(state)


@dataclass
class AdaptiveKL:
    """A KL coefficient that steers KL per response towards a target (SPEC eq. 7; Ziegler et al. 2019, section 2.2).

    kl_ctl in reward per nat; target in nats per response; horizon in responses.
    """

    kl_ctl: float
    target: float
    horizon: float

    def __post_init__(self) -> None:
        refuse_not_positive("kl_ctl", self.kl_ctl)
        refuse_not_positive("target", self.target)
        refuse_not_positive("horizon", self.horizon)

    def update(self, kl_per_response: float, responses: int) -> None:
        """Move kl_ctl after a batch.

        kl_per_response: the mean over responses of the summed signed k1, in nats. Fed the mean per token instead, the
        controller is wrong by a factor of the length. Raises ValueError where it is not finite, and where the
        batch is so large beside the horizon that kl_ctl would turn negative.
        """
        if not math.isfinite(kl_per_response):
            raise ValueError(f"kl_per_response ({kl_per_response}) must be finite")
        refuse_not_positive("responses", responses)
        error = min(max(kl_per_response / self.target - 1.0, -MOST_RELATIVE_ERROR), MOST_RELATIVE_ERROR)
        factor = 1.0 + error * responses / self.horizon
        if factor <= 0.0:
            raise ValueError(
                f"responses ({responses}) must be fewer than {1 / MOST_RELATIVE_ERROR:g} x horizon ({self.horizon})"
            )
        self.kl_ctl *= factor

    def state_dict(self) -> dict[str, float]:
        return {"kl_ctl": self.kl_ctl}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.kl_ctl = _kl_ctl_of(state)


def _kl_ctl_of(state: dict[str, float]) -> float:
    if set(state) != {"kl_ctl"}:
        raise ValueError(f"the state of a KL controller has one entry, kl_ctl, not {sorted(state)}")
    refuse_negative("kl_ctl", state["kl_ctl"])
    return float(state["kl_ctl"])
