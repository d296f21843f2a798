"""What an expert looks at after a PPO step. Means over tokens are over real tokens; KL is signed k1."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from torch import Tensor

from rlhf import config
from rlhf.maths.diagnostics import explained_variance
from rlhf.maths.kl import k1
from rlhf.maths.masked import masked_mean, masked_variance
from rlhf.training.ppo_state import PPOState
from rlhf.training.rollout import Experience

# Rollouts before the sign of the KL is believed, and how far it must be below 0: strict, because it is looked at after every
# rollout, and where the true KL is 0 chance has as many tries.
WATCHED = 20
STANDARD_ERRORS = 6.0
PEAK = "ratio_peak"  # the largest ratio of any token


def rollout_metrics(experience: Experience, kl_ctl: float, ppo: config.PPO) -> dict[str, float]:
    """Of what was sampled: scores, KL per response and per token, entropy, lengths, advantages before whitening, and how
    well the critic knew. `_sd` is a standard deviation over the tokens (of scores: over the responses)."""
    rollout = experience.rollout
    mask = rollout.response_mask
    kl = k1(rollout.old_logprobs, rollout.ref_logprobs)
    figures = {
        "score": float(rollout.raw_scores.mean()),
        "score_sd": float(rollout.raw_scores.std(correction=0)),
        "reward": float(experience.rewards.sum(1).mean()),
        "kl_per_response": float(kl.sum(1).mean()),
        "kl_per_token": float(masked_mean(kl, mask)),
        "kl_ctl": kl_ctl,
        "entropy": float(masked_mean(rollout.entropy, mask)),
        "response_tokens": float(mask.sum(1).double().mean()),
        "ended": float(rollout.ended.double().mean()),
        "worse_than_unended": float((rollout.scores < ppo.missing_end_score).double().mean()),
    } | _mean_and_sd("advantage", experience.raw_advantages, mask)
    if ppo.critic == "none":
        return figures
    figures |= _mean_and_sd("returns", experience.returns, mask) | _mean_and_sd("value", rollout.values, mask)
    return figures | {"explained_variance": float(explained_variance(rollout.values, experience.returns, mask))}


def _mean_and_sd(name: str, x: Tensor, mask: Tensor) -> dict[str, float]:
    return {name: float(masked_mean(x, mask)), f"{name}_sd": float(masked_variance(x, mask).sqrt())}


def explain_negative_kl(state: PPOState, rows: Sequence[dict[str, float]]) -> str | None:
    """`negative_kl`, once a run."""
    why = None if state.explained else negative_kl(rows)
    state.explained = state.explained or why is not None
    return why


def negative_kl(rows: Sequence[dict[str, float]]) -> str | None:
    """What to look for where the signed KL of the last rollouts is below 0 by more than chance; None where it is not.

    Its expectation cannot be negative on samples of the policy that is scored, so the samples are another's.
    """
    found = [row["kl_per_response"] for row in rows if "kl_per_response" in row][-WATCHED:]
    if len(found) < WATCHED:
        return None
    mean, error = statistics.fmean(found), statistics.stdev(found) / WATCHED**0.5
    if mean + STANDARD_ERRORS * error >= 0:
        return None
    return (
        f"sees a negative KL: {mean:.3g} nats a response over the last {WATCHED} rollouts. Probably what is scored is not "
        "what was sampled. Look for another temperature, top-k or top-p in sampling than in scoring, an end token that is "
        "kept from being sampled, dropout, and padding or positions that move log-probabilities"
    )


def over_steps(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of the rollout's optimizer steps: each figure's mean over the steps that have it, and the largest of the peaks."""
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: max(numbers) if name == PEAK else sum(numbers) / len(numbers) for name, numbers in found.items()}
