"""PPO's loop with real models: what moves and what must not, that it goes on from a stop, that it learns."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from rlhf.maths.kl import AdaptiveKL
from rlhf.models.batching import Batching
from rlhf.models.forward import logprobs_of, scores_of
from rlhf.models.generation import Decoding
from rlhf.training import ppo as loop
from rlhf.training import ppo_update
from rlhf.training.ppo import train_ppo
from rlhf.training.ppo_setup import make_state
from rlhf.training.ppo_state import policy_of
from rlhf.training.rollout import Rollout
from tests.helpers import assert_near
from tests.maths import twins
from tests.models.tiny_models import EOS, PAD, make_policy, random_examples
from tests.training.table import (
    CRITICS,
    METHODS,
    all_settings,
    environment_for,
    ppo_settings,
    ppo_table,
    run,
    stop,
    taste_for,
    weights,
)


@METHODS
def test_reference_and_reward_model_never_change(architecture: str, precision: str, critic: dict[str, Any]) -> None:
    """Neither their weights nor what they say of the same responses, bit for bit, while the policy leaves them."""
    settings = ppo_settings(**critic)
    state, environment = ppo_table(settings, architecture, precision)
    examples = random_examples(6, seed=8)

    def standing() -> list[torch.Tensor]:
        said = torch.cat(logprobs_of(environment.reference, examples, environment.batching))
        scores = scores_of(environment.reward_model, examples, environment.batching)
        return [weights(environment.reference), weights(environment.reward_model), said, scores]

    before, policy = standing(), weights(policy_of(state))
    run(state, environment, settings)
    assert all(torch.equal(now, then) for now, then in zip(standing(), before, strict=True))
    assert not torch.equal(weights(policy_of(state)), policy)
    assert not torch.equal(torch.cat(logprobs_of(policy_of(state), examples, environment.batching)), before[2])
    frozen = [*environment.reference.parameters(), *environment.reward_model.parameters()]
    assert not any(p.requires_grad or p.grad is not None for p in frozen)


@METHODS
def test_each_epoch_uses_each_response_once_in_an_order_of_its_own(
    architecture: str, precision: str, critic: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ppo_settings(**stop(steps=2), ppo_epochs=3, **critic)
    state, environment = ppo_table(settings, architecture, precision)
    seen: list[list[int]] = []
    real_cut = ppo_update.cut
    monkeypatch.setattr(ppo_update, "cut", lambda e, rows, tokens: seen.append(list(rows)) or real_cut(e, rows, tokens))
    run(state, environment, settings)
    assert len(seen) == 2 * 3 * 2  # steps, epochs, minibatches
    epochs = [seen[i] + seen[i + 1] for i in range(0, len(seen), 2)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


@CRITICS
def test_adaptive_kl_is_fed_the_sum_of_each_response(
    architecture: str, precision: str, critic: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """kl_ctl of every step by hand from the rollouts (SPEC eq. 7)."""
    settings = ppo_settings(kl_ctl=0.2, kl_target=0.01, kl_horizon=40, lr=5e-2, **critic)
    state, environment = ppo_table(settings, architecture, precision)
    rollouts: list[Rollout] = []
    real_sample = loop.sample
    monkeypatch.setattr(loop, "sample", lambda *a: rollouts.append(real_sample(*a)) or rollouts[-1])
    fed: list[tuple[float, int]] = []
    real_update = AdaptiveKL.update
    monkeypatch.setattr(AdaptiveKL, "update", lambda kl, *told: fed.append(told) or real_update(kl, *told))
    rows = run(state, environment, settings)
    assert isinstance(state.kl, AdaptiveKL)
    expected = [0.2]
    for rollout, (kl_per_response, responses) in zip(rollouts, fed, strict=True):
        sums = (rollout.old_logprobs - rollout.ref_logprobs).double().sum(1).tolist()
        assert_near(kl_per_response, twins.mean(sums), 1e-5)
        assert responses == 8
        error = min(max(twins.mean(sums) / 0.01 - 1, -0.2), 0.2)
        expected.append(expected[-1] * (1 + error * 8 / 40))
    assert_near([row["kl_ctl"] for row in rows[1:]], torch.tensor(expected[:-1], dtype=torch.float64), 1e-6)
    assert_near(state.kl.kl_ctl, expected[-1], 1e-6)
    assert len(set(expected)) == 4


def test_while_the_critic_warms_up_the_policy_stands_still() -> None:
    settings = ppo_settings(critic_warmup_steps=2)
    state, environment = ppo_table(settings)
    policy, before = policy_of(state), weights(policy_of(state))
    assert state.critic is not None
    critic = weights(state.critic.model)
    rows = train_ppo(state, environment, settings)
    for _ in range(3):  # the row before the first step, and two steps
        row = next(rows)
    assert torch.equal(weights(policy), before)
    assert not torch.equal(weights(state.critic.model), critic)
    assert "policy_loss" not in row
    assert "critic_loss" in row
    assert "policy_loss" in next(rows)
    assert not torch.equal(weights(policy), before)


def test_the_schedules_end_with_the_last_step() -> None:
    settings = ppo_settings(critic_warmup_steps=1, lr=1e-2, critic_lr=1e-3)
    state, environment = ppo_table(settings, optimizer_changes={"final_lr_share": 0.25})
    run(state, environment, settings)
    assert state.critic is not None
    assert_near([state.policy.lr, state.critic.lr], torch.tensor([0.25e-2, 0.25e-3], dtype=torch.float64))


def test_the_price_of_kl_does_not_adapt_while_the_policy_may_not_learn() -> None:
    settings = ppo_settings(kl_target=6.0, critic_warmup_steps=2)
    state, environment = ppo_table(settings)
    prices = [row["kl_ctl"] for row in run(state, environment, settings)[1:]]
    assert prices == [0.1, 0.1, 0.1]
    assert_near(state.kl.kl_ctl, 0.1 * (1 - 0.2 * 8 / 100))


@METHODS
@pytest.mark.parametrize(("kl_target", "architecture", "precision"), [(0.0, "llama", "float32"), (0.05, "gpt2", "bfloat16")])
def test_stopping_and_going_on_gives_the_same_bits(
    critic: dict[str, Any], kl_target: float, architecture: str, precision: str
) -> None:
    settings = ppo_settings(**stop(plateau_evaluations=6), kl_target=kl_target, ptx_coef=0.1, **critic)
    schedule = {"final_lr_share": 0.1, "weight_decay": 0.01}
    whole, environment = ppo_table(settings, architecture, precision, schedule)
    expected = run(whole, environment, settings)

    stopped, environment = ppo_table(settings, architecture, precision, schedule)
    rows = train_ppo(stopped, environment, settings)
    before = [next(rows) for _ in range(4)]
    assert before[-1]["step"] == 3
    buffer = io.BytesIO()
    torch.save(stopped.state_dict(), buffer)
    fresh, environment = ppo_table(settings, architecture, precision, schedule)
    fresh.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert before + run(fresh, environment, settings) == expected
    assert torch.equal(weights(fresh.policy.model), weights(whole.policy.model))
    assert fresh.kl.kl_ctl == whole.kl.kl_ctl
    left, right = fresh.state_dict(), whole.state_dict()
    assert {k: v for k, v in left.items() if k not in ("policy", "critic")} == {
        k: v for k, v in right.items() if k not in ("policy", "critic")
    }


@METHODS
def test_a_policy_finds_the_token_that_pays(critic: dict[str, Any]) -> None:
    """Eight tokens, one of which the reward model likes: a thirtieth rollout is made of little else."""
    paying, size = 5, 8
    settings = ppo_settings(
        stop={"steps": 30, "kl_budget": 0.0, "plateau_evaluations": 0},
        responses_per_step=32,
        responses_per_minibatch=16,
        kl_ctl=0.01,
        lam=1.0,
        missing_end_score=0.0,
        eval_every_steps=30,
        lr=2e-2,
        **critic,
    )
    prompts = [[token] for token in (3, 4, 6, 7)]
    policy = make_policy("llama", vocab_size=size, num_hidden_layers=1)
    environment = environment_for(
        policy,
        taste_for(paying, size),
        prompts=prompts,
        watched=prompts * 8,
        decoding=Decoding(EOS, PAD, 5),
        batching=Batching(PAD, 1000),
    )
    state = make_state(all_settings(settings), policy, environment.reward_model)

    def share() -> float:
        tokens = [t for e in loop.sample(state, environment, settings).examples for t in e.response_ids if t != EOS]
        return tokens.count(paying) / len(tokens)

    before = share()
    rows = run(state, environment, settings)
    assert before < 0.3
    assert share() > 0.8
    assert rows[-1]["validation_score"] > rows[0]["validation_score"]
    assert rows[-1]["validation_kl_per_response"] > 1.0
