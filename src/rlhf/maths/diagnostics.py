"""What says how an update of policy and critic went. Nothing is learnt from these."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlhf.maths.checks import refuse_bad_tokens, refuse_outside
from rlhf.maths.kl import k1, k3
from rlhf.maths.masked import at_least_float32, keep_real, masked_mean, masked_variance, only_rounding


def clip_fraction(logprobs: Tensor, old_logprobs: Tensor, response_mask: Tensor, clip_range: float) -> Tensor:
    """Share of real tokens whose ratio has left [1 - clip_range, 1 + clip_range]. Arguments and errors as policy_loss."""
    refuse_bad_tokens(response_mask, logprobs=logprobs, old_logprobs=old_logprobs)
    refuse_outside("clip_range", clip_range, 0.0, 1.0, open_ends=True)
    log_ratio = k1(logprobs, old_logprobs)
    outside = (log_ratio > math.log1p(clip_range)) | (log_ratio < math.log1p(-clip_range))
    return masked_mean(outside.to(log_ratio.dtype), response_mask)


def ratio_mean_and_peak(logprobs: Tensor, old_logprobs: Tensor, response_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and largest of the ratios of the real tokens (SPEC eq. 11): two scalars.

    On fresh samples of the old policy the mean's expectation is 1: far from it, a few tokens carry the rest.
    Arguments and errors as policy_loss.
    """
    refuse_bad_tokens(response_mask, logprobs=logprobs, old_logprobs=old_logprobs)
    ratio = keep_real(k1(logprobs, old_logprobs), response_mask).exp()
    return masked_mean(ratio, response_mask), keep_real(ratio, response_mask).max()


def approximate_kl(logprobs: Tensor, old_logprobs: Tensor, response_mask: Tensor) -> Tensor:
    """Mean of ratio - 1 - log ratio: how far learning has gone from the policy that sampled, nats per token.

    It is k3 of KL(old || new), on samples of old. Arguments and errors as policy_loss.
    """
    refuse_bad_tokens(response_mask, logprobs=logprobs, old_logprobs=old_logprobs)
    return masked_mean(k3(old_logprobs, logprobs), response_mask)


def explained_variance(values: Tensor, returns: Tensor, response_mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns): 1 for a perfect critic, 0 for a constant one, below 0 for a worse one.

    values, returns: (B, R), reward units. Returns that do not vary leave nothing to explain and give 0.
    Errors as value_loss.
    """
    refuse_bad_tokens(response_mask, values=values, returns=returns)
    total = masked_variance(returns, response_mask)
    unexplained = masked_variance(at_least_float32(returns) - at_least_float32(values), response_mask)
    constant = only_rounding(total, masked_mean(keep_real(returns, response_mask).square(), response_mask))
    return torch.where(constant, torch.zeros_like(total), 1.0 - unexplained / total)
