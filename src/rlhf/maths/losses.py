"""Every loss of the pipeline (SPEC eq. 2, 3, 5, 11-13, 16).

Each loss is a scalar to minimise. Those over tokens are means over the real tokens; where an optimizer step is cut into
micro-batches, give each of them `normaliser`, the number of real tokens in the whole step, and add the results up: the sum
is the loss of the step, however it was cut. Those over pairs and prompts are means over B: scale by B / (B of the step).

What a method holds fixed (old_logprobs, advantages, old_values, returns, the reference) gets no gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from rlhf.maths.checks import (
    refuse_bad_tokens,
    refuse_nan,
    refuse_not_positive,
    refuse_other_dimensions,
    refuse_outside,
    refuse_unequal_shapes,
)
from rlhf.maths.kl import k1, k2
from rlhf.maths.masked import at_least_float32, keep_real, masked_mean


def sft_loss(logprobs: Tensor, response_mask: Tensor, *, normaliser: float | None = None) -> Tensor:
    """Cross-entropy of the response tokens, end token included, in nats per token (SPEC section 2).

    logprobs: (B, R), nats. response_mask: (B, R), True on real tokens. normaliser: see above.
    Raises ValueError for unequal shapes, a row without a real token, NaN in a real position.
    """
    refuse_bad_tokens(response_mask, logprobs=logprobs)
    return _mean_over_step(-at_least_float32(logprobs), response_mask, normaliser)


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    clip_range: float,
    *,
    normaliser: float | None = None,
) -> Tensor:
    """PPO's clipped surrogate, negated (Schulman et al. 2017, eq. 7; SPEC eq. 11, 12), in units of the advantages.

    logprobs: (B, R), nats, of the policy that learns; old_logprobs: (B, R), of the one that sampled. advantages: (B, R).
    response_mask: (B, R). normaliser: see above.
    Raises ValueError for unequal shapes, a row without a real token, NaN in a real position, clip_range outside (0, 1).
    """
    refuse_bad_tokens(response_mask, logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    refuse_outside("clip_range", clip_range, 0.0, 1.0, open_ends=True)
    advantages = keep_real(advantages.detach(), response_mask)
    log_ratio = keep_real(k1(logprobs, old_logprobs.detach()), response_mask)
    # min(A ratio, A clip(ratio)) caps the ratio above where A > 0 and below where A < 0, and nowhere else. Capping it
    # before exp keeps a ratio of e^100 from becoming inf, whose gradient under min is 0 * inf.
    capped = torch.where(
        advantages >= 0,
        log_ratio.clamp(max=math.log1p(clip_range)),
        log_ratio.clamp(min=math.log1p(-clip_range)),
    )
    return _mean_over_step(-advantages * capped.exp(), response_mask, normaliser)


def unclipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    *,
    normaliser: float | None = None,
) -> Tensor:
    """The surrogate before it is clipped, negated (Schulman et al. 2017, eq. 6): -mean of A ratio.

    Where every ratio is 1 its gradient is that of -mean of A log pi, the policy gradient itself. Nothing bounds a ratio.
    Arguments and errors as policy_loss.
    """
    refuse_bad_tokens(response_mask, logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    advantages = keep_real(advantages.detach(), response_mask)
    ratio = keep_real(k1(logprobs, old_logprobs.detach()), response_mask).exp()
    return _mean_over_step(-advantages * ratio, response_mask, normaliser)


def kl_loss(logprobs: Tensor, ref_logprobs: Tensor, response_mask: Tensor, *, normaliser: float | None = None) -> Tensor:
    """The KL penalty as a loss: the mean of k2, nats per token (SPEC eq. 5).

    On the policy's own samples the expected gradient of k2 is that of KL(policy || reference). That of k1 would be 0, and
    that of k3 would belong to KL(reference || policy): both are estimates of the divergence, and neither is a loss for it.

    logprobs, ref_logprobs: (B, R), nats. response_mask: (B, R). normaliser: see above. The reference gets no gradient.
    Raises ValueError for unequal shapes, a row without a real token, NaN in a real position.
    """
    refuse_bad_tokens(response_mask, logprobs=logprobs, ref_logprobs=ref_logprobs)
    return _mean_over_step(k2(logprobs, ref_logprobs.detach()), response_mask, normaliser)


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    response_mask: Tensor,
    value_clip: float | None,
    *,
    normaliser: float | None = None,
) -> Tensor:
    """Half the squared error of the critic, the worse of unclipped and clipped (SPEC eq. 13), in reward units squared.

    values: (B, R), of the critic that learns; old_values: (B, R), from the rollout. returns: (B, R), the target.
    value_clip: how far a value may move from its old one before the move stops paying; None switches that off.
    Raises ValueError for unequal shapes, a row without a real token, NaN in a real position, value_clip <= 0.
    """
    refuse_bad_tokens(response_mask, values=values, old_values=old_values, returns=returns)
    values, old_values, returns = (keep_real(x, response_mask) for x in (values, old_values.detach(), returns.detach()))
    error = (values - returns).square()
    if value_clip is not None:
        refuse_not_positive("value_clip", value_clip)
        clipped = values.clamp(old_values - value_clip, old_values + value_clip)
        error = torch.maximum(error, (clipped - returns).square())
    return _mean_over_step(error / 2, response_mask, normaliser)


def reward_model_loss(chosen_rewards: Tensor, rejected_rewards: Tensor, margin: float | Tensor = 0.0) -> Tensor:
    """-log P(chosen beats rejected) under Bradley and Terry (1952), mean over pairs, in nats (SPEC eq. 1, 2).

    chosen_rewards, rejected_rewards: (B,), reward units. margin: by how much chosen has to win, a number or (B,).
    Raises ValueError for shapes that do not match and for NaN.
    """
    refuse_other_dimensions("B", chosen_rewards=chosen_rewards)
    margins = margin if isinstance(margin, Tensor) else torch.full_like(at_least_float32(chosen_rewards), margin)
    refuse_unequal_shapes(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards, margin=margins)
    refuse_nan(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards, margin=margins)
    return -logsigmoid(at_least_float32(chosen_rewards) - at_least_float32(rejected_rewards) - margins).mean()


def ranking_loss(scores: Tensor, ranks: Tensor) -> Tensor:
    """K responses to one prompt, ranked: mean over prompts of the mean of eq. 2 over the prompt's untied pairs (SPEC eq. 3).

    scores: (B, K), reward units. ranks: (B, K), a lower rank is better, only the order counts, equal ranks carry no
    pair. A prompt of ties only gives 0, and counts in the mean. All pairs of a prompt stay in one batch element, as they
    share their responses (Ouyang et al. 2022, section 3.5). Result in nats.
    Raises ValueError for unequal shapes, K < 2 and NaN.
    """
    refuse_other_dimensions("BK", scores=scores)
    refuse_unequal_shapes(scores=scores, ranks=ranks)
    refuse_nan(scores=scores, ranks=ranks)
    if scores.shape[1] < 2:
        raise ValueError(f"K ({scores.shape[1]}) must be at least 2: a ranking has pairs")
    scores = at_least_float32(scores)
    is_pair = ranks.unsqueeze(2) < ranks.unsqueeze(1)  # (B, K, K), True where i is ranked above j
    per_pair = -logsigmoid(scores.unsqueeze(2) - scores.unsqueeze(1))
    per_prompt = keep_real(per_pair, is_pair).sum((1, 2)) / is_pair.sum((1, 2)).clamp(min=1)
    return per_prompt.mean()


def dpo_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Direct preference optimization (Rafailov et al. 2023, eq. 7; SPEC eq. 16), mean over pairs, in nats.

    All four (B,), nats per response, summed over its tokens. beta: reward per nat. label_smoothing: the share of labels
    taken to be the wrong way round (conservative DPO, Mitchell 2023).
    Raises ValueError for shapes that do not match, NaN, beta <= 0, label_smoothing outside [0, 0.5].
    """
    _refuse_bad_logps(beta, chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps)
    refuse_outside("label_smoothing", label_smoothing, 0.0, 0.5)
    chosen_reward = beta * k1(chosen_logps, ref_chosen_logps.detach())
    rejected_reward = beta * k1(rejected_logps, ref_rejected_logps.detach())
    right = reward_model_loss(chosen_reward, rejected_reward)  # a policy is its own reward model
    wrong = reward_model_loss(rejected_reward, chosen_reward)
    return (1.0 - label_smoothing) * right + label_smoothing * wrong


def ipo_loss(
    chosen_logps: Tensor, rejected_logps: Tensor, ref_chosen_logps: Tensor, ref_rejected_logps: Tensor, beta: float
) -> Tensor:
    """Identity preference optimization (Azar et al. 2024, eq. 17), mean over pairs, in nats squared.

    The gap between the two log-ratios is drawn to 1 / (2 beta) and no further, where DPO's has no end if labels never
    contradict each other. Arguments and errors as dpo_loss.
    """
    _refuse_bad_logps(beta, chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps)
    gap = k1(chosen_logps, ref_chosen_logps.detach()) - k1(rejected_logps, ref_rejected_logps.detach())
    return (gap - 1.0 / (2.0 * beta)).square().mean()


def dpo_hinge_loss(
    chosen_logps: Tensor, rejected_logps: Tensor, ref_chosen_logps: Tensor, ref_rejected_logps: Tensor, beta: float
) -> Tensor:
    """The hinge in place of DPO's log sigmoid (Zhao et al. 2023; Liu et al. 2024), mean over pairs.

    A pair whose implicit rewards are 1 apart the right way round is learnt and gives no more gradient.
    Arguments and errors as dpo_loss.
    """
    _refuse_bad_logps(beta, chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps)
    gap = k1(chosen_logps, ref_chosen_logps.detach()) - k1(rejected_logps, ref_rejected_logps.detach())
    return relu(1.0 - beta * gap).mean()


def _refuse_bad_logps(
    beta: float, chosen_logps: Tensor, rejected_logps: Tensor, ref_chosen_logps: Tensor, ref_rejected_logps: Tensor
) -> None:
    refuse_other_dimensions("B", chosen_logps=chosen_logps)
    refuse_unequal_shapes(
        chosen_logps=chosen_logps,
        rejected_logps=rejected_logps,
        ref_chosen_logps=ref_chosen_logps,
        ref_rejected_logps=ref_rejected_logps,
    )
    refuse_nan(
        chosen_logps=chosen_logps,
        rejected_logps=rejected_logps,
        ref_chosen_logps=ref_chosen_logps,
        ref_rejected_logps=ref_rejected_logps,
    )
    refuse_not_positive("beta", beta)


def _mean_over_step(per_token: Tensor, response_mask: Tensor, normaliser: float | None) -> Tensor:
    if normaliser is None:
        return masked_mean(per_token, response_mask)
    refuse_not_positive("normaliser", normaliser)
    return keep_real(per_token, response_mask).sum() / normaliser
