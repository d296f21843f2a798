"""PPO's first two phases: what the policy says, what the others say to it, and what each token is then worth.

prompt_ids → Rollout → Experience. Each record is complete when made; no later step fills a field in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf import config
from rlhf.maths.advantages import gae, grpo, one_step_returns, rloo, token_rewards
from rlhf.maths.masked import masked_whiten, only_rounding
from rlhf.models.batching import Batching
from rlhf.models.generation import Decoding, generate
from rlhf.models.tokens import Example, collate


@dataclass(frozen=True, slots=True)
class Rollout:
    """B responses of the policy and what every model says of them; π_old is the policy of this moment (SPEC eq. 11).

    ended: (B,) bool. raw_scores: (B,) the reward model's, or the gold rater's. scores: (B,) what is paid for a response
    (`paid_scores`). response_mask: (B, R). old_logprobs, ref_logprobs, entropy: (B, R), nats. values: (B, R), reward
    units. 0 where masked, and values where there is no critic.
    """

    examples: list[Example]
    ended: Tensor
    raw_scores: Tensor
    scores: Tensor
    response_mask: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    entropy: Tensor
    values: Tensor


@dataclass(frozen=True, slots=True)
class Experience:
    """A rollout with what its tokens earned: rewards, advantages and the critic's targets, (B, R).

    advantages: what is learnt from, whitened if so set. raw_advantages: before that, in reward units.
    """

    rollout: Rollout
    rewards: Tensor
    raw_advantages: Tensor
    advantages: Tensor
    returns: Tensor


def padded(rows: Sequence[Tensor], width: int) -> Tensor:
    """Rows of unequal length as one (B, width) tensor, 0 beyond their ends."""
    return torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in rows])


def sample_responses(
    policy: PreTrainedModel,
    prompts: Sequence[list[int]],
    decoding: Decoding,
    temperature: float,
    seed: int,
) -> tuple[list[Example], Tensor]:
    """A response to each prompt, as examples, and (B,) whether it ended."""
    responses = generate(policy, prompts, decoding, temperature, seed)
    examples = [Example(prompt, response.response_ids) for prompt, response in zip(prompts, responses, strict=True)]
    return examples, torch.tensor([response.ended for response in responses])


def paid_scores(scores: Tensor, ended: Tensor, ppo: config.PPO) -> Tensor:
    """(B,) what responses are paid for the reward model's scores (B,): those of the rollout that ended, centred, scaled and
    cut as the settings say; and the constant, as it is, where a response did not end (B,)."""
    paid = scores[ended]
    if ppo.score_centre and len(paid):
        centred = paid - paid.mean()
        variance = centred.square().mean()
        alike = bool(only_rounding(variance, paid.square().mean()))
        paid = torch.zeros_like(centred) if alike else centred / (variance.sqrt() if ppo.score_scale else 1.0)
    if ppo.score_clip:
        paid = paid.clamp(-ppo.score_clip, ppo.score_clip)
    return torch.full_like(scores, ppo.missing_end_score).masked_scatter(ended, paid)


def assign_credit(rollout: Rollout, ppo: config.PPO, kl_ctl: float) -> Experience:
    """Scores and KL become rewards; rewards and values become advantages and the critic's targets (SPEC eq. 6-10)."""
    mask = rollout.response_mask
    price = kl_ctl if ppo.kl_in == "reward" else 0.0
    rewards = token_rewards(rollout.scores, rollout.old_logprobs, rollout.ref_logprobs, mask, price)
    raw_advantages, returns = _estimate(rewards, rollout.values, mask, ppo)
    advantages = masked_whiten(raw_advantages, mask) if ppo.whiten_advantages else raw_advantages
    return Experience(rollout, rewards, raw_advantages, advantages, returns)


def _estimate(rewards: Tensor, values: Tensor, mask: Tensor, ppo: config.PPO) -> tuple[Tensor, Tensor]:
    """What log pi is weighted by, and what the critic is drawn to (0 where there is none)."""
    match ppo.advantage:
        case "rloo":
            return rloo(rewards, mask, ppo.responses_per_prompt), torch.zeros_like(rewards)
        case "grpo":
            return grpo(rewards, mask, ppo.responses_per_prompt), torch.zeros_like(rewards)
    advantages, returns = gae(rewards, values, mask, ppo.gamma, ppo.lam)
    one_step = one_step_returns(rewards, values, mask, ppo.gamma)
    weights = one_step if ppo.weight == "action_value" else advantages
    return weights, one_step if ppo.critic_target == "td" else returns


@dataclass(frozen=True, slots=True)
class Minibatch:
    """Some rows of an experience, cut to their own longest response; what one forward pass and its losses need."""

    examples: list[Example]
    old_logprobs: Tensor
    ref_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor


def cut(experience: Experience, rows: Sequence[int], batching: Batching) -> list[Minibatch]:
    """Micro-batches of these rows, rows of like length together."""
    examples = [experience.rollout.examples[i] for i in rows]
    parts = []
    for group in batching.cut([len(e) for e in examples]):
        chosen = [examples[i] for i in group]
        places = torch.tensor([rows[i] for i in group], device=experience.advantages.device)
        width = max(len(e.response_ids) for e in chosen)
        old_logprobs, ref_logprobs, old_values, advantages, returns = (
            x[places, :width]
            for x in (
                experience.rollout.old_logprobs,
                experience.rollout.ref_logprobs,
                experience.rollout.values,
                experience.advantages,
                experience.returns,
            )
        )
        parts.append(Minibatch(chosen, old_logprobs, ref_logprobs, old_values, advantages, returns))
    return parts


def response_mask_of(examples: Sequence[Example], pad_id: int) -> Tensor:
    return collate(examples, pad_id).response_mask
