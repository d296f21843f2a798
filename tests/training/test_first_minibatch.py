"""What samples, what scores and what learns are one function of the weights: nothing has moved until a step is made, and
what was sampled stays what it was afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf.config import PPO
from rlhf.models.batching import Batching
from rlhf.training import ppo as loop
from rlhf.training import ppo_update
from rlhf.training.ppo import train_ppo
from rlhf.training.rollout import assign_credit
from tests.helpers import ROUNDING, assert_near
from tests.maths import twins
from tests.models.tiny_models import PAD
from tests.training.table import METHODS, ppo_settings, ppo_table

ALL_AT_ONCE = Batching(PAD, 10_000)  # every pass over the 8 responses of a rollout then has one and the same shape
Pairs = list[tuple[Tensor, Tensor]]


@pytest.fixture
def learning(monkeypatch: pytest.MonkeyPatch) -> dict[str, Pairs]:
    """What each micro-batch learns from, (now, old) of its real tokens: log-probabilities (policy) and values (critic)."""
    seen: dict[str, Pairs] = {"policy": [], "critic": []}

    def spy_on(name: str, of: str) -> None:
        real = getattr(ppo_update, name)

        def spy(now: Tensor, old: Tensor, target: Tensor, mask: Tensor, *rest: Any, **named: Any) -> Tensor:
            seen[of].append((now.detach()[mask], old[mask]))
            return real(now, old, target, mask, *rest, **named)

        monkeypatch.setattr(ppo_update, name, spy)

    spy_on("policy_loss", "policy")
    spy_on("value_loss", "critic")
    return seen


def ratios(learning: dict[str, Pairs]) -> Tensor:
    return torch.cat([(now - old).exp() for now, old in learning["policy"]])


def at_rest(**changes: Any) -> PPO:
    """Settings that go through all the motions with a learning rate of exactly 0, which no user may set."""
    return ppo_settings(temperature=0.7, **changes).model_copy(update={"lr": 0.0, "critic_lr": 0.0})


@METHODS
def test_before_any_step_kl_is_exactly_0(architecture: str, precision: str, critic: dict[str, Any]) -> None:
    settings = ppo_settings(stop={"steps": 2, "kl_budget": 0.0, "plateau_evaluations": 0}, temperature=0.7, **critic)
    rows = list(train_ppo(*ppo_table(settings, architecture, precision), settings))
    assert rows[0]["step"] == 0
    assert [rows[0]["validation_kl_per_response"], rows[1]["kl_per_response"], rows[1]["kl_per_token"]] == [0.0, 0.0, 0.0]
    assert rows[2]["kl_per_response"] != 0.0


@METHODS
def test_on_the_first_minibatch_every_ratio_is_1_to_the_bit(
    architecture: str, precision: str, critic: dict[str, Any], learning: dict[str, Pairs]
) -> None:
    """And the loss is that of REINFORCE: minus the mean advantage."""
    settings = ppo_settings(temperature=0.7, ppo_epochs=1, responses_per_minibatch=8, **critic)
    state, environment = ppo_table(settings, architecture, precision, batching=ALL_AT_ONCE)
    rollout = loop.sample(state, environment, settings)
    experience = assign_credit(rollout, settings, 0.1)
    figures = ppo_update.learn(state, experience, environment, settings)
    assert ratios(learning).numel() == rollout.response_mask.sum() < rollout.response_mask.numel()
    assert ratios(learning).eq(1.0).all()
    assert len(learning["critic"]) == (settings.critic != "none")
    assert all(torch.equal(now, old) for now, old in learning["critic"])
    assert (figures["approximate_kl"], figures["clip_fraction"]) == (0.0, 0.0)
    advantages = twins.every([row[m].tolist() for row, m in zip(experience.advantages, rollout.response_mask, strict=True)])
    assert_near(figures["policy_loss"], -twins.mean(advantages), 1e-6)
    assert figures["policy_gradient_norm"] > 0


@METHODS
def test_at_a_rate_of_0_every_ratio_is_1_to_the_bit_in_every_epoch(
    architecture: str, precision: str, critic: dict[str, Any], learning: dict[str, Pairs]
) -> None:
    settings = at_rest(ppo_epochs=3, responses_per_minibatch=8, **critic)
    state, environment = ppo_table(settings, architecture, precision, batching=ALL_AT_ONCE)
    rows = list(train_ppo(state, environment, settings))
    assert len(learning["policy"]) == 3 * 3  # steps, epochs
    assert ratios(learning).eq(1.0).all()
    assert all(torch.equal(now, old) for now, old in learning["critic"])
    for row in rows[1:]:
        assert [row[name] for name in ("approximate_kl", "clip_fraction", "kl_per_response")] == [0.0, 0.0, 0.0]
        assert row["validation_score"] == rows[0]["validation_score"]


@METHODS
@pytest.mark.parametrize("tokens", [1, 25])
def test_in_other_shapes_than_those_of_scoring_ratios_are_1_to_rounding(
    architecture: str, precision: str, critic: dict[str, Any], tokens: int, learning: dict[str, Pairs]
) -> None:
    settings = at_rest(ppo_epochs=2, responses_per_minibatch=4, **critic)
    state, environment = ppo_table(settings, architecture, precision, batching=ALL_AT_ONCE)
    experience = assign_credit(loop.sample(state, environment, settings), settings, 0.1)
    cut_apart = replace(environment, batching=Batching(PAD, tokens))
    figures = ppo_update.learn(state, experience, cut_apart, settings)
    assert len(learning["policy"]) > 2 * 2  # epochs, minibatches
    assert_near(ratios(learning), torch.ones_like(ratios(learning)), ROUNDING[precision])
    for now, old in learning["critic"]:
        assert_near(now, old, ROUNDING[precision])
    assert abs(figures["approximate_kl"]) < ROUNDING[precision]
    assert figures["clip_fraction"] == 0.0


@METHODS
def test_in_later_epochs_what_was_sampled_is_still_the_measure(
    architecture: str, precision: str, critic: dict[str, Any], learning: dict[str, Pairs]
) -> None:
    """Old log-probabilities and values are the rollout's in every epoch, while the policy leaves them behind."""
    settings = ppo_settings(ppo_epochs=3, responses_per_minibatch=8, lr=3e-2, critic_lr=3e-2, **critic)
    state, environment = ppo_table(settings, architecture, precision, batching=ALL_AT_ONCE)
    rollout = loop.sample(state, environment, settings)
    figures = ppo_update.learn(state, assign_credit(rollout, settings, 0.1), environment, settings)
    sampled = {"policy": rollout.old_logprobs, "critic": rollout.values}
    for of, seen in learning.items():
        assert len(seen) == (3 if of == "policy" or settings.critic != "none" else 0)
        for epoch, (now, old) in enumerate(seen):
            assert torch.equal(old.sort().values, sampled[of][rollout.response_mask].sort().values)
            assert torch.equal(now, old) is (epoch == 0)
    assert figures["approximate_kl"] > 1e-4


@METHODS
@pytest.mark.parametrize("clip_range", [0.02, 0.5])
def test_the_clip_fraction_is_the_share_of_ratios_outside_of_the_clip(
    architecture: str, critic: dict[str, Any], clip_range: float, learning: dict[str, Pairs]
) -> None:
    """The first step has ratios of 1 whatever the clip, so that the second one has the same ratios under every clip."""
    settings = ppo_settings(ppo_epochs=2, responses_per_minibatch=8, clip_range=clip_range, **critic)
    state, environment = ppo_table(settings, architecture, batching=ALL_AT_ONCE)
    experience = assign_credit(loop.sample(state, environment, settings), settings, 0.1)
    figures = ppo_update.learn(state, experience, environment, settings)
    moved = ratios(learning)
    outside = (moved > 1 + clip_range) | (moved < 1 - clip_range)
    assert_near(figures["clip_fraction"], outside.double().mean(), 1e-6)
    shares = [float(((moved - 1).abs() > edge).double().mean()) for edge in (0.02, 0.5)]
    assert shares[0] > shares[1] > 0
