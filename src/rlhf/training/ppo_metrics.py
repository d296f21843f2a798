"""What an expert looks at after a PPO step. Means over tokens are over real tokens; KL is signed k1."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf.maths.diagnostics import explained_variance
from rlhf.maths.kl import k1
from rlhf.maths.masked import masked_mean
from rlhf.training.rollout import Experience


def rollout_metrics(experience: Experience, kl_ctl: float, has_critic: bool) -> dict[str, float]:
    """Of what was sampled: scores, KL per response and per token, entropy, lengths, and how well the critic knew."""
    rollout = experience.rollout
    mask = rollout.response_mask
    kl = k1(rollout.old_logprobs, rollout.ref_logprobs)
    figures = {
        "score": float(rollout.raw_scores.mean()),
        "reward": float(experience.rewards.sum(1).mean()),
        "kl_per_response": float(kl.sum(1).mean()),
        "kl_per_token": float(masked_mean(kl, mask)),
        "kl_ctl": kl_ctl,
        "entropy": float(masked_mean(rollout.entropy, mask)),
        "response_tokens": float(mask.sum(1).double().mean()),
        "ended": float(rollout.ended.double().mean()),
    }
    if not has_critic:
        return figures
    return figures | {
        "explained_variance": float(explained_variance(rollout.values, experience.returns, mask)),
        "returns": float(masked_mean(experience.returns, mask)),
    }


def mean_over_steps(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of the rollout's optimizer steps: the mean of each figure over the steps that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _mean([row[name] for row in rows if name in row]) for name in names}


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
