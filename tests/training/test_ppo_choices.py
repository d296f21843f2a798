"""What PPO may be told to do otherwise: estimators without a critic, KL as a loss, no clip, shaped scores, leaving early."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from rlhf.maths.advantages import gae, grpo, one_step_returns, rloo, token_rewards
from rlhf.maths.losses import kl_loss, policy_loss, unclipped_policy_loss
from rlhf.models.forward import response_logprobs, response_values
from rlhf.models.tokens import collate
from rlhf.training import ppo as loop
from rlhf.training import ppo_update
from rlhf.training.ppo_metrics import explain_negative_kl, negative_kl
from rlhf.training.ppo_setup import make_state
from rlhf.training.ppo_state import model_of, policy_of
from rlhf.training.rollout import Experience, assign_credit, paid_scores
from tests.helpers import assert_near, float64
from tests.models.tiny_models import PAD, make_classifier, make_policy, random_examples
from tests.training.table import (
    GRPO,
    RLOO,
    all_settings,
    environment_for,
    leave_the_reference,
    ppo_settings,
    ppo_table,
    steps_of,
    weights,
)

ENDED = torch.tensor([True, True, True, False])
SCORES = float64([1.0, 2.0, 6.0, -1.0])


def test_scores_are_paid_as_they_are_but_for_a_missing_end() -> None:
    assert paid_scores(SCORES, ENDED, ppo_settings(missing_end_score=-7.0)).tolist() == [1.0, 2.0, 6.0, -7.0]


def test_scores_centred_scaled_and_cut_by_hand() -> None:
    """Of those that ended: mean 3, deviation sqrt(14 / 3). What is put in place of a missing end takes no part."""
    paid = paid_scores(SCORES, ENDED, ppo_settings(score_centre=True, missing_end_score=-7.0))
    assert_near(paid, [-2.0, -1.0, 3.0, -7.0])
    paid = paid_scores(SCORES, ENDED, ppo_settings(score_centre=True, score_scale=True, missing_end_score=-7.0))
    assert_near(paid, [score / (14 / 3) ** 0.5 for score in (-2.0, -1.0, 3.0)] + [-7.0])
    assert_near(paid_scores(SCORES, ENDED, ppo_settings(score_clip=1.5, missing_end_score=-7.0)), [1.0, 1.5, 1.5, -7.0])
    whole = paid_scores(SCORES, ENDED, ppo_settings(score_centre=True, score_scale=True, score_clip=0.5))
    assert_near(whole, [-0.5, -1 / (14 / 3) ** 0.5, 0.5, -1.0])


@pytest.mark.parametrize("score", [0.0, 1.0, 3.4567, -1000.1])
@pytest.mark.parametrize("count", [1, 3, 7, 128])
def test_scores_that_are_all_alike_are_paid_nothing_however_they_round(score: float, count: int) -> None:
    settings = ppo_settings(score_centre=True, score_scale=True)
    ended = torch.tensor([True] * count + [False])
    assert paid_scores(torch.full((count + 1,), score), ended, settings).tolist() == [0.0] * count + [-1.0]


def test_where_nothing_ended_all_get_the_constant() -> None:
    settings = ppo_settings(score_centre=True, score_scale=True, score_clip=0.5)
    assert paid_scores(SCORES, torch.zeros(4, dtype=torch.bool), settings).tolist() == [-1.0] * 4


def experience_of(**changes: Any) -> tuple[loop.PPOState, Any, Any, Experience]:
    """Of a policy that has left its reference."""
    settings = ppo_settings(**changes)
    state, environment = ppo_table(settings)
    leave_the_reference(policy_of(state))
    rollout = loop.sample(state, environment, settings)
    return state, environment, settings, assign_credit(rollout, settings, 0.3)


@pytest.mark.parametrize("method", [RLOO, GRPO], ids=["rloo", "grpo"])
def test_each_prompt_gets_its_responses_side_by_side_and_there_is_no_critic(method: dict[str, Any]) -> None:
    state, _, settings, experience = experience_of(**method)
    prompts = [tuple(e.prompt_ids) for e in experience.rollout.examples]
    assert len(prompts) == settings.responses_per_step
    groups = [prompts[i : i + 4] for i in range(0, len(prompts), 4)]
    assert all(len(set(group)) == 1 for group in groups)
    assert len(set(prompts)) == len(groups)
    assert state.critic is None
    assert not experience.rollout.values.any()


def test_rloo_prices_kl_in_its_rewards_and_grpo_outside_of_them() -> None:
    for method, estimator, price in ((RLOO, rloo, 0.3), (GRPO, grpo, 0.0)):
        experience = experience_of(**method)[3]
        rollout = experience.rollout
        mask = rollout.response_mask
        rewards = token_rewards(rollout.scores, rollout.old_logprobs, rollout.ref_logprobs, mask, price)
        assert torch.equal(experience.rewards, rewards)
        assert torch.equal(experience.advantages, estimator(rewards, mask, 4))


def test_the_first_rung_weighs_by_the_action_value() -> None:
    experience = experience_of(weight="action_value", gamma=0.9, whiten_advantages=False)[3]
    rollout = experience.rollout
    one_step = one_step_returns(experience.rewards, rollout.values, rollout.response_mask, 0.9)
    assert torch.equal(experience.advantages, one_step)
    _, returns = gae(experience.rewards, rollout.values, rollout.response_mask, 0.9, 0.95)
    assert torch.equal(experience.returns, returns)


@pytest.mark.parametrize("kl_in", ["reward", "loss"])
@pytest.mark.parametrize("clip_range", [0.2, None])
def test_what_the_policy_descends(kl_in: str, clip_range: float | None) -> None:
    """One step on the whole rollout, after another that made the ratios differ from 1."""
    changes = {"ppo_epochs": 1, "responses_per_minibatch": 8, "kl_in": kl_in, "clip_range": clip_range}
    state, environment, settings, experience = experience_of(**changes)
    ppo_update.learn(state, experience, environment, settings)
    batch = collate(experience.rollout.examples, PAD)
    mask, rollout = batch.response_mask, experience.rollout
    now = response_logprobs(policy_of(state), batch)
    sampled = (rollout.old_logprobs, experience.advantages, mask)
    expected = unclipped_policy_loss(now, *sampled) if clip_range is None else policy_loss(now, *sampled, clip_range)
    kl = kl_loss(now, rollout.ref_logprobs, mask)
    whole = expected + (state.kl.kl_ctl * kl if kl_in == "loss" else 0.0)
    gradients = torch.autograd.grad(whole, list(policy_of(state).parameters()))
    figures = ppo_update.learn(state, experience, environment, settings)
    assert_near(figures["policy_loss"], expected, 1e-5)
    assert ("kl_loss" in figures) is (kl_in == "loss")
    assert_near(figures.get("kl_loss", kl), kl, 1e-5)
    assert_near(figures["policy_gradient_norm"], sum(g.double().square().sum() for g in gradients) ** 0.5, 1e-4)
    assert ("clip_fraction" in figures) is (clip_range is not None)


def test_at_the_reference_a_kl_in_the_loss_changes_nothing() -> None:
    """The square of nothing has no slope; far from it, it pulls the policy back."""
    moved = []
    for kl_in in ("reward", "loss"):
        settings = ppo_settings(kl_in=kl_in, ppo_epochs=1, responses_per_minibatch=8)
        state, environment = ppo_table(settings)
        rollout = loop.sample(state, environment, settings)
        ppo_update.learn(state, assign_credit(rollout, settings, 0.1), environment, settings)
        moved.append(weights(policy_of(state)))
    assert_near(moved[0], moved[1], 1e-6)


def test_a_policy_leaves_a_rollout_that_it_has_gone_too_far_from() -> None:
    counts = {}
    for limit in (0.0, 1e-9, 1e9):
        state, environment, settings, experience = experience_of(ppo_epochs=3, epoch_kl_limit=limit)
        steps = [steps_of(engine) for engine in (state.policy, state.critic)]
        ppo_update.learn(state, experience, environment, settings)
        counts[limit] = tuple(map(len, steps))
    assert counts[0.0] == counts[1e9] == (6, 6)
    assert counts[1e-9] == (2, 6)  # the first minibatch has ratios of 1, the second has not


def test_it_leaves_at_the_first_minibatch_whose_kl_is_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit half-way between the largest KL of the first minibatches and that of the next one, which is larger."""
    seen: list[dict[str, float]] = []
    real = ppo_update.over_steps
    monkeypatch.setattr(ppo_update, "over_steps", lambda rows: seen.extend(rows) or real(rows))
    state, environment, settings, experience = experience_of(ppo_epochs=3)
    ppo_update.learn(state, experience, environment, settings)
    kls = [row["approximate_kl"] for row in seen if "approximate_kl" in row]
    rises = [i for i in range(2, 6) if kls[i] > max(kls[:i])]
    assert rises
    for i in rises:
        limit = (max(kls[:i]) + kls[i]) / 2
        state, environment, settings, experience = experience_of(ppo_epochs=3, epoch_kl_limit=limit)
        steps = steps_of(state.policy)
        ppo_update.learn(state, experience, environment, settings)
        assert len(steps) == i + 1


@pytest.mark.parametrize("layers", [2, 1])
def test_a_critic_may_start_from_the_policy(layers: int) -> None:
    """It then has all the layers of the policy, however many the reward model has, and learns alone."""
    policy, reward_model = make_policy("llama", seed=0), make_classifier("llama", seed=1, num_hidden_layers=layers)
    reward_model.config.reward_center = 3.0
    state = make_state(all_settings(ppo_settings(critic_from="policy")), policy, reward_model)
    assert state.critic is not None
    critic = model_of(state.critic)
    assert torch.equal(weights(critic.base_model), weights(policy.base_model))
    assert critic.config.num_hidden_layers == 2
    assert not {p.data_ptr() for p in critic.parameters()} & {p.data_ptr() for p in policy.parameters()}
    assert all(p.requires_grad for p in critic.parameters())
    values = response_values(critic, collate(random_examples(3), PAD))
    assert not values.any()
    assert reward_model.config.reward_center == 3.0
    assert float(weights(reward_model.base_model).sum()) != float(weights(policy.base_model).sum())


@pytest.mark.parametrize("method", [RLOO, GRPO], ids=["rloo", "grpo"])
def test_what_there_is_no_critic_for_is_not_reported(method: dict[str, Any]) -> None:
    settings = ppo_settings(**method)
    policy, reward_model = make_policy("llama"), make_classifier("llama", seed=1)
    environment = environment_for(policy, reward_model)
    state = make_state(all_settings(settings), policy, reward_model)
    rows = list(loop.train_ppo(state, environment, settings))
    assert not {"explained_variance", "returns", "critic_loss"} & set(rows[-1])
    assert {"policy_loss", "approximate_kl", "score", "kl_per_response"} <= set(rows[-1])


def kl_rows(values: list[float]) -> list[dict[str, float]]:
    return [{"step": 0, "validation_score": 1.0}, *({"kl_per_response": value} for value in values)]


def test_a_kl_that_stays_negative_is_explained() -> None:
    said = negative_kl(kl_rows([-0.5, -0.4] * 10))
    assert said is not None
    assert "-0.45 nats a response over the last 20 rollouts" in said
    assert "temperature" in said
    assert negative_kl(kl_rows([-1.0, -0.2] * 10)) is not None  # 6.5 standard errors below 0


def test_it_is_explained_once_a_run_also_after_a_stop() -> None:
    state, _ = ppo_table(ppo_settings())
    rows = kl_rows([-0.5, -0.4] * 11)
    told = [explain_negative_kl(state, rows[:length]) for length in range(1, len(rows) + 1)]
    assert [why is not None for why in told] == [False] * 20 + [True] + [False] * 2
    again, _ = ppo_table(ppo_settings())
    again.load_state_dict(copy.deepcopy(state.state_dict()))
    assert explain_negative_kl(again, rows) is None


@pytest.mark.parametrize(
    "values",
    [[0.0] * 20, [-0.5, -0.4] * 9, [-0.5, 0.4] * 10, [-1.0, -0.1] * 10, [-0.5] * 30 + [0.1] * 20],
    ids=["none", "too few", "chance", "5.3 standard errors", "long past"],
)
def test_a_kl_that_may_be_0_is_not(values: list[float]) -> None:
    assert negative_kl(kl_rows(values)) is None
