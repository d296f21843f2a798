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
from rlhf.maths.advantages import gae, one_step_returns, token_rewards
from rlhf.maths.masked import masked_whiten
from rlhf.models.forward import micro_batches
from rlhf.models.generation import Decoding, generate
from rlhf.models.tokens import Example, collate


@dataclass(frozen=True, slots=True)
class Rollout:
    """B responses of the policy and what every model says of them; π_old is the policy of this moment (SPEC eq. 11).

    ended: (B,) bool. raw_scores: (B,) the reward model's. scores: (B,) with the constant where a response did not end.
    response_mask: (B, R). old_logprobs, ref_logprobs, entropy: (B, R), nats. values: (B, R), reward units. 0 where masked.
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
    """A rollout with what its tokens earned: rewards, advantages (whitened if so set) and the critic's targets, (B, R)."""

    rollout: Rollout
    rewards: Tensor
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


def assign_credit(rollout: Rollout, ppo: config.PPO, kl_ctl: float) -> Experience:
    """Scores and KL become rewards; rewards and values become advantages and the critic's targets (SPEC eq. 6-10)."""
    mask = rollout.response_mask
    rewards = token_rewards(rollout.scores, rollout.old_logprobs, rollout.ref_logprobs, mask, kl_ctl)
    advantages, returns = gae(rewards, rollout.values, mask, ppo.gamma, ppo.lam)
    if ppo.critic_target == "td":
        returns = one_step_returns(rewards, rollout.values, mask, ppo.gamma)
    if ppo.whiten_advantages:
        advantages = masked_whiten(advantages, mask)
    return Experience(rollout, rewards, advantages, returns)


@dataclass(frozen=True, slots=True)
class Minibatch:
    """Some rows of an experience, cut to their own longest response; what one forward pass and its losses need."""

    examples: list[Example]
    old_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor


def cut(experience: Experience, rows: Sequence[int], tokens_per_micro_batch: int) -> list[Minibatch]:
    """Micro-batches of these rows, rows of like length together."""
    examples = [experience.rollout.examples[i] for i in rows]
    parts = []
    for group in micro_batches([len(e) for e in examples], tokens_per_micro_batch):
        chosen = [examples[i] for i in group]
        places = torch.tensor([rows[i] for i in group], device=experience.advantages.device)
        width = max(len(e.response_ids) for e in chosen)
        old_logprobs, old_values, advantages, returns = (
            x[places, :width]
            for x in (
                experience.rollout.old_logprobs,
                experience.rollout.values,
                experience.advantages,
                experience.returns,
            )
        )
        parts.append(Minibatch(chosen, old_logprobs, old_values, advantages, returns))
    return parts


def response_mask_of(examples: Sequence[Example], pad_id: int) -> Tensor:
    return collate(examples, pad_id).response_mask
