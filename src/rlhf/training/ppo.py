"""Proximal policy optimization with a learned reward (SPEC section 4): sample, assign credit, learn, until a stated stop.

Four models: the policy learns, the critic learns, the reference and the reward model stand still. The critic is a model of
its own, or a head on the policy's trunk (`critic: shared`): then both learn in one engine from L_total (SPEC eq. 14). RLOO
and GRPO do without one: several responses to a prompt are each other's baseline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from rlhf import config
from rlhf.models.batching import Batching
from rlhf.models.forward import logprobs_and_entropy_of, logprobs_of, scores_of, shared_values_of, values_of
from rlhf.models.tokens import Example
from rlhf.runtime.engine import weights_of
from rlhf.seeds import derive_seed, draw_rows
from rlhf.training.ppo_metrics import rollout_metrics
from rlhf.training.ppo_state import Environment, Kept, PPOState, SharedTrunk, model_of, policy_learns, policy_of, whole
from rlhf.training.ppo_update import learn
from rlhf.training.rollout import Rollout, assign_credit, padded, paid_scores, response_mask_of, sample_responses
from rlhf.training.watch import look, said


def train_ppo(state: PPOState, environment: Environment, ppo: config.PPO) -> Iterator[dict[str, float]]:
    """Steps until a rule of `ppo.stop` holds, a row each; row 0 is the evaluation before the first step."""
    if state.step == 0 and not state.said:
        with whole(state):
            validation = evaluate(state, environment)
            keep_best(state, validation, ppo)
        state.best_score = validation["validation_score"]
        yield {"step": 0} | validation
    while not state.stopped_by:
        with whole(state):
            rollout = sample(state, environment, ppo)
        experience = assign_credit(rollout, ppo, state.kl.kl_ctl)
        row = rollout_metrics(experience, state.kl.kl_ctl, ppo) | learn(state, experience, environment, ppo)
        if policy_learns(state, ppo):
            state.kl.update(row["kl_per_response"], len(rollout.examples))
        state.step += 1
        last = state.step == ppo.stop.steps
        if last or state.step % ppo.eval_every_steps == 0:
            with whole(state):
                validation = evaluate(state, environment)
                keep_best(state, validation, ppo)
            state.stopped_by = stop_reason(state, validation, ppo)
            row |= validation
        yield {"step": state.step} | row
    if state.kept:
        state.policy.load_weights(state.kept.weights)


def sample(state: PPOState, environment: Environment, ppo: config.PPO) -> Rollout:
    """Phase one and two: prompts become responses; reference, critic and reward model say what they say (SPEC eq. 5, 6)."""
    policy = policy_of(state)
    wanted = ppo.responses_per_step // ppo.responses_per_prompt
    asked = draw_rows(len(environment.prompts), derive_seed(environment.seed, "prompts"), state.step * wanted, wanted)
    places = [place for place in asked for _ in range(ppo.responses_per_prompt)]
    examples, ended = sample_responses(
        policy,
        [environment.prompts[i] for i in places],
        environment.decoding,
        ppo.temperature,
        derive_seed(environment.seed, "rollout", state.step),
    )
    return with_feedback(state, environment, ppo, places, examples, ended)


def with_feedback(
    state: PPOState, environment: Environment, ppo: config.PPO, places: list[int], examples: list[Example], ended: Tensor
) -> Rollout:
    """The responses with everybody's say. The policy's own log-probabilities come from the pass that will be trained."""
    policy, batching = policy_of(state), environment.batching
    old_logprobs, entropy = logprobs_and_entropy_of(policy, examples, batching, ppo.temperature)
    ref_logprobs = logprobs_of(environment.reference, examples, batching, ppo.temperature)
    raw_scores = _scores(environment, places, examples)
    ended = ended.to(raw_scores.device)
    mask = response_mask_of(examples, batching.pad_id).to(raw_scores.device)
    width = mask.shape[1]
    values = _values(state, examples, batching)
    return Rollout(
        examples=examples,
        ended=ended,
        raw_scores=raw_scores,
        scores=paid_scores(raw_scores, ended, ppo),
        response_mask=mask,
        old_logprobs=padded(old_logprobs, width),
        ref_logprobs=padded(ref_logprobs, width),
        entropy=padded(entropy, width),
        values=torch.zeros_like(mask, dtype=raw_scores.dtype) if values is None else padded(values, width),
    )


def _scores(environment: Environment, places: list[int], examples: list[Example]) -> Tensor:
    """(B,) what the reward model, or the gold rater in its place, says of responses to the prompts at these places."""
    if environment.gold is None:
        return scores_of(environment.reward_model, examples, environment.batching)
    return torch.tensor(environment.gold(places, examples), device=environment.reward_model.device)


def _values(state: PPOState, examples: list[Example], batching: Batching) -> list[Tensor] | None:
    """What the critic says of every token; None where there is none."""
    if state.critic is not None:
        return values_of(model_of(state.critic), examples, batching)
    trunk = state.policy.model
    if not isinstance(trunk, SharedTrunk):
        return None
    return shared_values_of(trunk.policy, trunk.value_head, examples, batching)


def evaluate(state: PPOState, environment: Environment) -> dict[str, float]:
    """What the policy is worth now, on validation prompts; some of its answers are kept in `state.said`."""
    seen = look(policy_of(state), environment.watch)
    if environment.gold is None:
        scores = scores_of(environment.reward_model, seen.examples, environment.batching)
        worth = float(scores.mean())
        seen = replace(seen, scores={"score": scores.tolist()} | seen.scores)
    else:
        worth = seen.figures["validation_gold_score"]
    state.said.append(said(state.step, seen, environment.watch))
    return {"validation_score": worth} | seen.figures


def keep_best(state: PPOState, validation: dict[str, float], ppo: config.PPO) -> None:
    """Remembers the policy if none before was worth more by the figure that `ppo.keep_best_by` names; not on the GPU."""
    if ppo.keep_best_by is None:
        return
    worth = validation[ppo.keep_best_by]
    if state.kept is None or worth > state.kept.worth:
        state.kept = Kept(state.step, worth, weights_of(state.policy.model))


def stop_reason(state: PPOState, validation: dict[str, float], ppo: config.PPO) -> str:
    """Which rule of `ppo.stop` holds after this evaluation; empty where none does. While only the critic learns there is no
    plateau."""
    stop = ppo.stop
    if validation["validation_score"] > state.best_score:
        state.best_score, state.evaluations_since_best = validation["validation_score"], 0
    elif state.step > ppo.critic_warmup_steps:
        state.evaluations_since_best += 1
    if stop.kl_budget and validation["validation_kl_per_response"] > stop.kl_budget:
        return "kl_budget"
    if stop.plateau_evaluations and state.evaluations_since_best >= stop.plateau_evaluations:
        return "plateau"
    return "steps" if state.step >= stop.steps else ""
