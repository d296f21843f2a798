"""When PPO stops, what it sees when it looks, and which policy it keeps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlhf.models.generation import generate
from rlhf.models.tokens import Example
from rlhf.training import ppo as loop
from rlhf.training.ppo import evaluate
from rlhf.training.ppo_state import Environment, policy_of
from rlhf.training.watch import look
from tests.helpers import assert_near
from tests.maths import twins
from tests.models.tiny_models import EOS, alone, picked
from tests.training.table import CRITICS, leave_the_reference, ppo_settings, ppo_table, run, stop, weights


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


def test_a_look_is_at_the_temperature_of_training(architecture: str) -> None:
    """Of a policy that has moved: its answers, and their KL from every token's distribution, one row at a time."""
    state, environment = ppo_table(ppo_settings(temperature=0.7), architecture)
    policy, watch = policy_of(state), environment.watch
    leave_the_reference(policy)
    seen = look(policy, watch)
    answers = generate(policy, watch.prompts, watch.decoding, 0.7, watch.seed)
    assert [e.response_ids for e in seen.examples] == [answer.response_ids for answer in answers]
    nats = [float(sum(picked(alone(policy, e, 0.7), e) - picked(alone(watch.reference, e, 0.7), e))) for e in seen.examples]
    assert_near(seen.figures["validation_kl_per_response"], twins.mean(nats), 1e-5)


@CRITICS
def test_the_best_policy_by_a_figure_is_the_one_that_stays(critic: dict[str, Any]) -> None:
    """A judge who likes the policy best after its first step."""
    settings = ppo_settings(keep_best_by="validation_gold_score", **critic)
    state, environment = ppo_table(settings)
    verdicts = iter([1.0, 3.0, 2.0, 0.5])
    environment = replace(environment, watch=replace(environment.watch, judge=lambda _: [next(verdicts)]))
    seen = [weights(policy_of(state)) for _ in loop.train_ppo(state, environment, settings)]
    assert state.kept is not None
    assert (state.kept.step, state.kept.worth) == (1, 3.0)
    assert torch.equal(weights(policy_of(state)), seen[1])
    assert not torch.equal(seen[3], seen[1])


def test_the_first_of_equals_stays_and_the_last_policy_where_nothing_is_asked_for() -> None:
    settings = ppo_settings(keep_best_by="validation_ended")
    state, _ = ppo_table(settings)
    for step, ended in enumerate([0.5, 0.75, 0.75, 0.25]):
        state.step = step
        loop.keep_best(state, {"validation_ended": ended}, settings)
    assert state.kept is not None
    assert state.kept.step == 1
    state.kept = None
    loop.keep_best(state, {"validation_ended": 1.0}, ppo_settings())
    assert state.kept is None


def test_what_was_kept_survives_a_stop() -> None:
    settings = ppo_settings(keep_best_by="validation_score")
    state, environment = ppo_table(settings)
    rows = loop.train_ppo(state, environment, settings)
    for _ in range(2):
        next(rows)
    again, _ = ppo_table(settings)
    again.load_state_dict(copy.deepcopy(state.state_dict()))
    assert again.kept is not None
    assert state.kept is not None
    assert (again.kept.step, again.kept.worth) == (state.kept.step, state.kept.worth)
    assert all(torch.equal(again.kept.weights[name], weight) for name, weight in state.kept.weights.items())
