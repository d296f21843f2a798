"""From what a response was paid to how much better each of its tokens was than expected (SPEC eq. 6, 8-10).

t runs over the real tokens of a response: the successor of a token is the next real one, and after the last real one
every value is 0. Results are 0 where masked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf.maths.checks import refuse_bad_tokens, refuse_nan, refuse_negative, refuse_other_dimensions, refuse_outside
from rlhf.maths.kl import k1
from rlhf.maths.masked import VARIANCE_FLOOR, at_least_float32, keep_real, only_rounding


def token_rewards(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, response_mask: Tensor, kl_ctl: float) -> Tensor:
    """What each token is paid: -kl_ctl * k1, and on the last real token the score as well (SPEC eq. 6).

    scores: (B,), the reward model's on a whole response. logprobs, ref_logprobs: (B, R), nats. response_mask: (B, R),
    True on real tokens, end token included. Returns (B, R) in reward units; its sum over a row is
    score - kl_ctl * (sum of k1).

    Raises ValueError for shapes that do not match, a row without a real token, NaN in a real position, kl_ctl < 0.
    """
    refuse_other_dimensions("BR", logprobs=logprobs)
    refuse_bad_tokens(response_mask, logprobs=logprobs, ref_logprobs=ref_logprobs)
    if scores.shape != logprobs.shape[:1]:
        raise ValueError(f"scores {tuple(scores.shape)} must be (B,), with the B of logprobs {tuple(logprobs.shape)}")
    refuse_nan(scores=scores)
    refuse_negative("kl_ctl", kl_ctl)
    kl = keep_real(k1(logprobs, ref_logprobs), response_mask)
    score = at_least_float32(scores).unsqueeze(1).expand_as(kl)
    return keep_real(score, _is_last(response_mask)) - kl_ctl * kl


def gae(rewards: Tensor, values: Tensor, response_mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation (Schulman et al. 2016, eq. 16; SPEC eq. 8-10).

    rewards, values: (B, R), reward units; values[:, t] is V before token t is known. response_mask: (B, R).
    Returns advantages (B, R), not whitened, and returns (B, R) = advantages + values.

    Raises ValueError for shapes that do not match, a row without a real token, NaN in a real position, gamma or lam
    outside [0, 1].
    """
    _refuse_bad_trajectory(rewards, values, response_mask, gamma)
    refuse_outside("lam", lam, 0.0, 1.0)
    values = keep_real(values, response_mask)
    deltas = keep_real(rewards, response_mask) + gamma * _next_values(values, response_mask) - values
    running = torch.zeros_like(deltas[:, 0])
    backwards = []
    for delta, real in zip(reversed(deltas.unbind(1)), reversed(response_mask.unbind(1)), strict=True):
        running = torch.where(real, delta + gamma * lam * running, running)
        backwards.append(running)
    advantages = keep_real(torch.stack(backwards[::-1], dim=1), response_mask)
    return advantages, advantages + values


def one_step_returns(rewards: Tensor, values: Tensor, response_mask: Tensor, gamma: float) -> Tensor:
    """r_t + gamma V_{t+1}, the one-step target of the critic (SPEC section 4, learning).

    Arguments and errors as gae. Returns (B, R) in reward units. No gradient reaches the values: a target stands still.
    """
    _refuse_bad_trajectory(rewards, values, response_mask, gamma)
    values = keep_real(values.detach(), response_mask)
    return keep_real(rewards, response_mask) + gamma * _next_values(values, response_mask)


def rloo(rewards: Tensor, response_mask: Tensor, responses_per_prompt: int) -> Tensor:
    """REINFORCE, leave one out (Kool et al. 2019; Ahmadian et al. 2024, eq. 8): no critic, the siblings are the baseline.

    rewards: (B, R), reward units, as token_rewards gives them; the responses to one prompt stand side by side in B,
    `responses_per_prompt` of them. response_mask: (B, R). Returns (B, R): to every real token of a response what the
    whole of it was paid, less the mean of what the others to its prompt were; 0 where masked.

    Raises ValueError for shapes that do not match, a row without a real token, NaN in a real position, fewer than two
    responses per prompt, or a B that they do not divide.
    """
    paid = _paid_by_prompt(rewards, response_mask, responses_per_prompt)
    others = (paid.sum(1, keepdim=True) - paid) / (responses_per_prompt - 1)
    return _to_every_token(paid - others, response_mask)


def grpo(rewards: Tensor, response_mask: Tensor, responses_per_prompt: int) -> Tensor:
    """Group-relative advantages (Shao et al. 2024, section 4.1.2): what a response was paid, whitened within its prompt.

    Arguments, result and errors as rloo; the unit is the standard deviation (population) of what the prompt's responses
    were paid. Where all were paid the same the advantages are 0.
    """
    paid = _paid_by_prompt(rewards, response_mask, responses_per_prompt)
    centred = paid - paid.mean(1, keepdim=True)
    variance = centred.square().mean(1, keepdim=True)
    white = centred * torch.rsqrt(variance + VARIANCE_FLOOR)
    alike = only_rounding(variance, paid.square().mean(1, keepdim=True))
    return _to_every_token(torch.where(alike, torch.zeros_like(white), white), response_mask)


def _paid_by_prompt(rewards: Tensor, response_mask: Tensor, responses_per_prompt: int) -> Tensor:
    """(prompts, responses_per_prompt) sums over the tokens of each response."""
    refuse_other_dimensions("BR", rewards=rewards)
    refuse_bad_tokens(response_mask, rewards=rewards)
    if responses_per_prompt < 2 or len(rewards) % responses_per_prompt:
        raise ValueError(
            f"responses_per_prompt ({responses_per_prompt}) must be at least 2 and divide the number of responses "
            f"({len(rewards)})"
        )
    return keep_real(rewards, response_mask).sum(1).view(-1, responses_per_prompt)


def _to_every_token(advantages: Tensor, response_mask: Tensor) -> Tensor:
    return keep_real(advantages.reshape(-1, 1).expand(response_mask.shape), response_mask)


def _refuse_bad_trajectory(rewards: Tensor, values: Tensor, response_mask: Tensor, gamma: float) -> None:
    refuse_other_dimensions("BR", rewards=rewards)
    refuse_bad_tokens(response_mask, rewards=rewards, values=values)
    refuse_outside("gamma", gamma, 0.0, 1.0)


def _is_last(response_mask: Tensor) -> Tensor:
    """(B, R), True on each row's last real token alone."""
    real_from_here = response_mask.flip(1).cumsum(1).flip(1)
    return response_mask & (real_from_here == 1)


def _next_values(values: Tensor, response_mask: Tensor) -> Tensor:
    """(B, R), at each real token the value at the next real one, 0 at the last and where masked."""
    following = torch.zeros_like(values[:, 0])
    backwards = []
    for value, real in zip(reversed(values.unbind(1)), reversed(response_mask.unbind(1)), strict=True):
        backwards.append(following)
        following = torch.where(real, value, following)
    return keep_real(torch.stack(backwards[::-1], dim=1), response_mask)
