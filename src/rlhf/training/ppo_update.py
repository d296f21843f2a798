"""PPO's third phase: policy and critic learn from one rollout (SPEC eq. 11-14)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from rlhf import config
from rlhf.maths.diagnostics import approximate_kl, clip_fraction, ratio_mean_and_peak
from rlhf.maths.losses import kl_loss, policy_loss, sft_loss, unclipped_policy_loss, value_loss
from rlhf.models.forward import logprobs_and_values, response_logprobs, response_values
from rlhf.models.tokens import Batch, Example, collate
from rlhf.runtime.engine import Engine
from rlhf.seeds import shuffled
from rlhf.training.ppo_metrics import PEAK, over_steps
from rlhf.training.ppo_state import Environment, PPOState, SharedTrunk, model_of, policy_learns, policy_of
from rlhf.training.rollout import Experience, Minibatch, cut

Figures = dict[str, float]


def learn(state: PPOState, experience: Experience, environment: Environment, ppo: config.PPO) -> dict[str, float]:
    """Phase three: ppo_epochs passes over the rollout, in freshly shuffled minibatches, each row once a pass.

    The policy leaves the rollout once it is `epoch_kl_limit` from the one that sampled; a critic of its own learns on.
    """
    seen: list[dict[str, float]] = []
    learning = policy_learns(state, ppo)
    learn_policy = _learn_together if isinstance(state.policy.model, SharedTrunk) else _learn_policy
    for epoch in range(ppo.ppo_epochs):
        order = shuffled(len(experience.rollout.examples), environment.seed, "minibatches", state.step, epoch)
        for start in range(0, len(order), ppo.responses_per_minibatch):
            rows = order[start : start + ppo.responses_per_minibatch]
            parts = cut(experience, rows, environment.batching)
            if state.critic is not None:
                seen.append(_learn_critic(state.critic, parts, environment, ppo))
            if learning:
                seen.append(learn_policy(state, parts, (epoch, start), environment, ppo))
                learning = not ppo.epoch_kl_limit or seen[-1]["approximate_kl"] <= ppo.epoch_kl_limit
    return over_steps(seen)


@dataclass(frozen=True, slots=True)
class PtxPart:
    """A micro-batch of demonstrations, and how many response tokens those of the whole step have."""

    examples: list[Example]
    tokens_of_step: int


def _tokens(parts: Sequence[Minibatch]) -> int:
    return sum(len(e.response_ids) for part in parts for e in part.examples)


def _batch(part: Minibatch, environment: Environment) -> Batch:
    return collate(part.examples, environment.batching.pad_id).to(part.advantages.device)


def _learn_critic(critic: Engine, parts: Sequence[Minibatch], environment: Environment, ppo: config.PPO) -> dict[str, float]:
    """One step of the critic on SPEC eq. 13."""
    tokens, model = _tokens(parts), model_of(critic)

    def loss_of(part: Minibatch) -> tuple[Tensor, float]:
        batch = _batch(part, environment)
        values = response_values(model, batch)
        loss = value_loss(
            values, part.old_values, part.returns, batch.response_mask, ppo.value_clip or None, normaliser=tokens
        )
        return loss, loss.item()

    done = critic.step(parts, loss_of)
    return {"critic_loss": sum(done.told), "critic_gradient_norm": done.norm, "critic_lr": critic.lr}


def _learn_policy(
    state: PPOState, parts: Sequence[Minibatch], place: tuple[int, int], environment: Environment, ppo: config.PPO
) -> dict[str, float]:
    """One step of the policy on SPEC eq. 12, with the SFT loss beside it where ptx_coef asks for it (eq. 14)."""
    tokens, policy = _tokens(parts), policy_of(state)

    def loss_of(part: Minibatch | PtxPart) -> tuple[Tensor, Figures]:
        if isinstance(part, PtxPart):
            return _ptx_loss(policy, part, environment, ppo)
        batch = _batch(part, environment)
        logprobs = response_logprobs(policy, batch, ppo.temperature)
        return _actor_loss(logprobs, part, batch.response_mask, tokens, state.kl.kl_ctl, ppo)

    everything: list[Minibatch | PtxPart] = [*parts, *_ptx_parts(state, parts, place, environment, ppo)]
    done = state.policy.step(everything, loss_of)
    return _of_step(done.told) | {"policy_gradient_norm": done.norm, "lr": state.policy.lr}


def _learn_together(
    state: PPOState, parts: Sequence[Minibatch], place: tuple[int, int], environment: Environment, ppo: config.PPO
) -> dict[str, float]:
    """One step of policy and critic on L_total = L_actor + w_c L_critic (SPEC eq. 14)."""
    tokens, trunk, w_c = _tokens(parts), state.policy.model, ppo.w_c
    assert isinstance(trunk, SharedTrunk)
    assert w_c is not None  # the settings refuse a shared trunk without it

    def loss_of(part: Minibatch | PtxPart) -> tuple[Tensor, Figures]:
        if isinstance(part, PtxPart):
            return _ptx_loss(trunk.policy, part, environment, ppo)
        batch = _batch(part, environment)
        mask = batch.response_mask
        logprobs, values = logprobs_and_values(trunk.policy, trunk.value_head, batch, ppo.temperature)
        actor, figures = _actor_loss(logprobs, part, mask, tokens, state.kl.kl_ctl, ppo)
        critic = value_loss(values, part.old_values, part.returns, mask, ppo.value_clip or None, normaliser=tokens)
        return actor + w_c * critic, figures | {"critic_loss": critic.item()}

    everything: list[Minibatch | PtxPart] = [*parts, *_ptx_parts(state, parts, place, environment, ppo)]
    done = state.policy.step(everything, loss_of)
    return _of_step(done.told) | {"policy_gradient_norm": done.norm, "lr": state.policy.lr}


def _actor_loss(
    logprobs: Tensor,
    part: Minibatch,
    mask: Tensor,
    tokens: int,
    kl_ctl: float,
    ppo: config.PPO,
) -> tuple[Tensor, Figures]:
    """The micro-batch's share of L_actor (SPEC eq. 12), and of the KL where that is a loss and not in the reward."""
    sampled = (part.old_logprobs, part.advantages, mask)
    if ppo.clip_range is None:
        loss = unclipped_policy_loss(logprobs, *sampled, normaliser=tokens)
    else:
        loss = policy_loss(logprobs, *sampled, ppo.clip_range, normaliser=tokens)
    figures = {"policy_loss": loss.item()} | _policy_figures(logprobs.detach(), part, mask, tokens, ppo)
    if ppo.kl_in == "reward":
        return loss, figures
    kl = kl_loss(logprobs, part.ref_logprobs, mask, normaliser=tokens)
    return loss + kl_ctl * kl, figures | {"kl_loss": kl.item()}


def _policy_figures(now: Tensor, part: Minibatch, mask: Tensor, tokens: int, ppo: config.PPO) -> Figures:
    """A micro-batch's share of the step's figures: they add up to means over the step's tokens, but for the peak."""
    share = int(mask.sum()) / tokens
    now, old = now.double(), part.old_logprobs.double()  # e^700 is a number there
    ratio, peak = ratio_mean_and_peak(now, old, mask)
    figures = {"approximate_kl": share * float(approximate_kl(now, old, mask)), "ratio": share * float(ratio)}
    if ppo.clip_range is not None:
        figures["clip_fraction"] = share * float(clip_fraction(now, old, mask, ppo.clip_range))
    return figures | {PEAK: float(peak)}


def _of_step(figures: Sequence[Figures]) -> Figures:
    """The sums of its micro-batches' shares, and the largest of the peaks."""
    names = dict.fromkeys(name for row in figures for name in row)
    found = {name: [row[name] for row in figures if name in row] for name in names}
    return {name: max(numbers) if name == PEAK else sum(numbers) for name, numbers in found.items()}


def _ptx_parts(
    state: PPOState, parts: Sequence[Minibatch], place: tuple[int, int], environment: Environment, ppo: config.PPO
) -> list[PtxPart]:
    """As many demonstrations as the minibatch has responses, in micro-batches; none where ptx_coef is 0."""
    if not ppo.ptx_coef:
        return []
    order = shuffled(len(environment.demonstrations), environment.seed, "ptx", state.step, *place)
    chosen = [environment.demonstrations[i] for i in order[: sum(len(part.examples) for part in parts)]]
    tokens = sum(len(e.response_ids) for e in chosen)
    groups = environment.batching.cut([len(e) for e in chosen])
    return [PtxPart([chosen[i] for i in group], tokens) for group in groups]


def _ptx_loss(
    policy: PreTrainedModel,
    part: PtxPart,
    environment: Environment,
    ppo: config.PPO,
) -> tuple[Tensor, Figures]:
    """ptx_coef times the part's share of the mean over the step's demonstration tokens."""
    batch = collate(part.examples, environment.batching.pad_id).to(policy.device)
    loss = sft_loss(response_logprobs(policy, batch), batch.response_mask, normaliser=part.tokens_of_step)
    return ppo.ptx_coef * loss, {"ptx_loss": loss.item()}
