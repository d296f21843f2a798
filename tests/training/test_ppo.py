"""PPO's loop with real models: what moves and what must not, when it stops, that it learns."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlhf.config import PPO
from rlhf.maths.kl import AdaptiveKL
from rlhf.models.forward import Batching, logprobs_of, scores_of
from rlhf.models.generation import Decoding
from rlhf.models.precision import precision_of
from rlhf.models.tokens import Example
from rlhf.training import ppo as loop
from rlhf.training import ppo_update
from rlhf.training.ppo import evaluate, train_ppo
from rlhf.training.ppo_setup import make_state
from rlhf.training.ppo_state import Environment, PPOState, model_of, policy_of
from rlhf.training.rollout import Rollout, assign_credit
from tests.helpers import ROUNDING, SUMMED, assert_near
from tests.maths import twins
from tests.models.tiny_models import EOS, PAD, make_policy, random_examples
from tests.training.table import (
    CRITICS,
    METHODS,
    STEADY,
    all_settings,
    environment_for,
    ppo_settings,
    ppo_table,
    taste_for,
    weights,
)


def run(state: PPOState, environment: Environment, settings: PPO) -> list[dict[str, float]]:
    return list(train_ppo(state, environment, settings))


@CRITICS
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_ratio_that_has_left_its_range_earns_nothing_more(
    architecture: str, precision: str, critic: dict[str, Any], sign: float
) -> None:
    """Log-ratios of 1 where that pays, or of -1 where that does: a loss at the edge of the clip, and no gradient."""
    settings = ppo_settings(ppo_epochs=1, responses_per_minibatch=8, clip_range=0.2, value_clip=0.0, **critic)
    state, environment = ppo_table(settings, architecture, precision)
    experience = assign_credit(loop.sample(state, environment, settings), settings, 0.1)
    mask = experience.rollout.response_mask
    moved = replace(experience.rollout, old_logprobs=(experience.rollout.old_logprobs - sign) * mask)
    paid = replace(experience, rollout=moved, advantages=sign * mask.float(), returns=moved.values)
    figures = ppo_update.learn(state, paid, environment, settings)
    assert_near(figures["policy_loss"], -sign * (1 + sign * 0.2), 1e-5)
    assert figures["clip_fraction"] == pytest.approx(1.0)
    assert_near(figures["approximate_kl"], math.exp(sign) - 1 - sign, 1e-5)
    assert figures["policy_gradient_norm"] < 1e-6


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


def stop(**changes: float) -> dict[str, Any]:
    return {"stop": {"steps": 6, "kl_budget": 0.0, "plateau_evaluations": 0} | changes}


@pytest.mark.parametrize(
    ("changes", "steps", "reason"),
    [
        (stop(), 6, "steps"),
        (stop() | {"eval_every_steps": 4}, 6, "steps"),
        (stop(kl_budget=1e-4) | {"lr": 5e-2}, 1, "kl_budget"),
        (stop(kl_budget=1e-4) | {"lr": 5e-2, "eval_every_steps": 3}, 3, "kl_budget"),
        (stop(kl_budget=1e9), 6, "steps"),
        (stop(plateau_evaluations=2) | {"lr": 1e-12}, 2, "plateau"),
        (stop(plateau_evaluations=2) | {"lr": 1e-12, "eval_every_steps": 2}, 4, "plateau"),
        (stop(plateau_evaluations=2) | {"lr": 1e-12, "critic_warmup_steps": 3}, 5, "plateau"),
    ],
)
def test_a_run_stops_by_the_first_rule_that_holds(changes: dict[str, Any], steps: int, reason: str) -> None:
    settings = ppo_settings(**changes)
    state, environment = ppo_table(settings)
    rows = run(state, environment, settings)
    assert (rows[-1]["step"], state.step, state.stopped_by) == (steps, steps, reason)
    assert "validation_score" in rows[-1]
    assert run(state, environment, settings) == []


@pytest.mark.parametrize(("kl", "reason"), [(2.0, ""), (2.01, "kl_budget"), (-5.0, "")])
def test_the_kl_budget_is_of_nats_per_response(kl: float, reason: str) -> None:
    settings = ppo_settings(**stop(kl_budget=2.0))
    state, _ = ppo_table(settings)
    row = {"validation_score": 9.0, "validation_kl_per_response": kl}
    assert loop.stop_reason(state, row, settings) == reason


def test_the_price_of_kl_does_not_adapt_while_the_policy_may_not_learn() -> None:
    settings = ppo_settings(kl_target=6.0, critic_warmup_steps=2)
    state, environment = ppo_table(settings)
    prices = [row["kl_ctl"] for row in run(state, environment, settings)[1:]]
    assert prices == [0.1, 0.1, 0.1]
    assert_near(state.kl.kl_ctl, 0.1 * (1 - 0.2 * 8 / 100))


def test_a_better_score_starts_the_wait_anew() -> None:
    settings = ppo_settings(**stop(plateau_evaluations=2))
    state, _ = ppo_table(settings)
    reasons = []
    for state.step, score in enumerate((1.0, 0.5, 2.0, 1.9, 1.8), start=1):
        row = {"validation_score": score, "validation_kl_per_response": 0.0}
        reasons.append(loop.stop_reason(state, row, settings))
    assert reasons == ["", "", "", "", "plateau"]
    assert state.best_score == 2.0


def judged_by(environment: Environment, judge: Callable[[Sequence[Example]], list[float]]) -> Environment:
    return replace(environment, watch=replace(environment.watch, judge=judge))


def test_evaluation_is_the_same_each_time_and_asks_the_judge_only_for_the_record() -> None:
    settings = ppo_settings()
    state, environment = ppo_table(settings)
    judged: list[list[Example]] = []
    with_judge = judged_by(environment, lambda examples: judged.append(list(examples)) or [3.0, 4.0])
    once = evaluate(state, environment)
    assert evaluate(state, environment) == once
    assert evaluate(state, with_judge) == once | {"validation_gold_score": 3.5}
    (examples,) = judged
    assert [e.prompt_ids for e in examples] == environment.watch.prompts
    assert once["validation_response_tokens"] == twins.mean([float(len(e.response_ids)) for e in examples])
    assert once["validation_ended"] == twins.mean([float(e.response_ids[-1] == EOS) for e in examples])
    plain = run(*ppo_table(settings), settings)
    other = ppo_table(settings)
    judged_run = run(other[0], judged_by(other[1], lambda _: [math.pi]), settings)
    assert [{k: v for k, v in row.items() if k != "validation_gold_score"} for row in judged_run] == plain


def per_token(state: PPOState, example: Example, temperature: float = 1.0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Log-probabilities and values of one response, from one row without padding, each of its own forward pass."""
    policy, start = policy_of(state), len(example.prompt_ids)
    ids = torch.tensor([example.prompt_ids + example.response_ids])
    places = range(start - 1, start - 1 + len(example.response_ids))
    with precision_of(policy):
        logits = policy(input_ids=ids).logits[0].float()
    logprobs = [torch.log_softmax(logits[t] / temperature, -1)[ids[0, t + 1]] for t in places]
    model = model_of(state.critic) if state.critic else policy
    head = model.score if state.critic else state.policy.model.value_head
    with precision_of(model):
        hidden = model.base_model(input_ids=ids).last_hidden_state[0]
    return logprobs, [head(hidden[t].float())[0] for t in places]


@CRITICS
@pytest.mark.parametrize("ptx_coef", [0.0, 0.7])
def test_one_step_descends_the_losses_of_the_definitions(
    architecture: str, precision: str, critic: dict[str, Any], ptx_coef: float
) -> None:
    """One rollout, one minibatch: gradient norms and losses against a twin that adds up tokens one by one."""
    demonstrations = random_examples(8, seed=3)
    settings = ppo_settings(
        ppo_epochs=1, responses_per_minibatch=8, temperature=0.8, ptx_coef=ptx_coef, value_clip=0.0, **critic
    )
    state, environment = ppo_table(settings, architecture, precision, demonstrations=demonstrations)
    rollout = loop.sample(state, environment, settings)
    experience = assign_credit(rollout, settings, 0.1)

    twin, _ = ppo_table(settings, architecture, precision)
    gains, errors = [], []
    for i, example in enumerate(rollout.examples):
        logprobs, values = per_token(twin, example, 0.8)
        for t, (logprob, value) in enumerate(zip(logprobs, values, strict=True)):
            gains.append((logprob - logprob.detach()).exp() * experience.advantages[i, t])
            errors.append((value - experience.returns[i, t]).square() / 2)
    nll = torch.stack([-p for e in demonstrations for p in per_token(twin, e)[0]]).mean()
    actor, of_critic = -torch.stack(gains).mean(), torch.stack(errors).mean()
    (actor + ptx_coef * nll + (settings.w_c or 1.0) * of_critic).backward()

    def norm(model: torch.nn.Module) -> float:
        return math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None))

    figures = ppo_update.learn(state, experience, environment, settings)
    assert_near(figures["policy_loss"], actor, ROUNDING[precision])
    assert_near(figures["critic_loss"], of_critic, SUMMED[precision])
    assert_near(figures["policy_gradient_norm"], norm(twin.policy.model), SUMMED[precision])
    if twin.critic is not None:
        assert_near(figures["critic_gradient_norm"], norm(twin.critic.model), SUMMED[precision])


@METHODS
def test_how_a_step_is_cut_changes_nothing_beside_demonstrations_either(critic: dict[str, Any]) -> None:
    trained, rate = {}, 30.0
    for tokens in (1, 25, 10_000):
        settings = ppo_settings(ppo_epochs=2, ptx_coef=0.7, lr=rate, critic_lr=rate, **critic)
        state, environment = ppo_table(settings, optimizer_changes=STEADY)
        before = weights(state.policy.model)
        rollout = loop.sample(state, environment, settings)  # the same rollout for all, cut apart in learning alone
        experience = assign_credit(rollout, settings, 0.1)
        figures = ppo_update.learn(state, experience, replace(environment, batching=Batching(PAD, tokens)), settings)
        both = [weights(engine.model) for engine in (state.policy, state.critic) if engine]
        assert float((both[0] - before).abs().max()) > 1e-3
        trained[tokens] = (torch.cat(both), figures)
    for tokens in (1, 25):
        assert_near(trained[tokens][0], trained[10_000][0], 2e-6)
        for name, value in trained[tokens][1].items():
            assert_near(value, trained[10_000][1][name], 1e-4)


def test_the_value_loss_of_a_shared_trunk_reaches_the_trunk_and_w_c_weighs_it(architecture: str, precision: str) -> None:
    """With advantages of 0 only the critic teaches; its head is 0 at first, so the trunk hears from the second step on."""
    moved = {}
    for w_c in (0.0, 1.0):
        settings = ppo_settings(critic="shared", w_c=1.0, ppo_epochs=2, responses_per_minibatch=8)
        settings = settings.model_copy(update={"w_c": w_c})  # of 0, which the settings refuse
        state, environment = ppo_table(settings, architecture, precision)
        trunk = weights(policy_of(state).base_model)
        experience = assign_credit(loop.sample(state, environment, settings), settings, 0.1)
        silent = replace(experience, advantages=torch.zeros_like(experience.advantages))
        ppo_update.learn(state, silent, environment, settings)
        moved[w_c] = not torch.equal(weights(policy_of(state).base_model), trunk)
    assert moved == {0.0: False, 1.0: True}


def test_a_separate_critic_leaves_the_policy_alone(architecture: str, precision: str) -> None:
    settings = ppo_settings(ppo_epochs=2)
    state, environment = ppo_table(settings, architecture, precision)
    before = weights(policy_of(state))
    experience = assign_credit(loop.sample(state, environment, settings), settings, 0.1)
    ppo_update.learn(state, replace(experience, advantages=torch.zeros_like(experience.advantages)), environment, settings)
    assert_near(weights(policy_of(state)), before, 1e-9)


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
