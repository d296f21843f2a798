"""A step of 8 rows of unequal length is the same step in 8 micro-batches of 1, in 2 of 4 and in 1 of 8, in every loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf.models.batching import Batching
from rlhf.runtime.engine import TorchEngine
from rlhf.training import ppo as loop
from rlhf.training import ppo_update
from rlhf.training.loop import Passes
from rlhf.training.rollout import assign_credit
from tests.helpers import SUMMED, assert_near
from tests.models.tiny_models import PAD, make_classifier, make_policy
from tests.training.by_loop import EXAMPLES, ROWS, Learner, by_dpo, by_reward, by_sft, groups
from tests.training.table import METHODS, STEADY, engine_for, learned, ppo_settings, ppo_table, steps_of

ONE_STEP = Passes(epochs=1, rows_per_step=ROWS, eval_every_steps=9, seed=0)
# Of every weight, the largest having moved by 1e-3 and more; and of the loss. Under bfloat16 each micro-batch rounds its
# share of a weight's gradient to 8 bits before it is added, so there equality to 1e-6 cannot be had: what is left is that
# all the weights together end as near to each other as 2e-2 of the way they went.
EXACT, OF_THE_WAY = 1e-6, 2e-2


Trained = tuple[Tensor, float, list[list[Any]]]  # weights, loss, the micro-batches of each step
LONGEST_GROUP = max(3 * max(map(len, group)) for group in groups())
LOOPS = [(by_sft, 100.0, max(map(len, EXAMPLES))), (by_reward, 100.0, LONGEST_GROUP), (by_dpo, 30.0, LONGEST_GROUP)]


def assert_the_same(trained: Callable[[int], Trained], start: Tensor, longest: int, precision: str) -> None:
    """In micro-batches that hold one row, four of the longest, and all."""
    cuts = {8: trained(1), 2: trained(4 * longest), 1: trained(8 * longest)}
    assert all({len(step) for step in steps} == {parts} for parts, (_, _, steps) in cuts.items())
    whole, loss, _ = cuts[1]
    assert float((whole - start).abs().max()) > 1e-3
    for by_parts, cut_loss, _ in (cuts[8], cuts[2]):
        if precision == "float32":
            assert_near(by_parts, whole, EXACT)
            assert_near(cut_loss, loss, EXACT)
        else:
            assert float((by_parts - whole).norm()) < OF_THE_WAY * float((whole - start).norm())
            assert_near(cut_loss, loss, SUMMED[precision])


@pytest.mark.parametrize(("learn", "lr", "longest"), LOOPS, ids=["sft", "reward", "dpo"])
def test_how_a_step_is_cut_changes_nothing(
    learn: Learner, lr: float, longest: int, architecture: str, precision: str
) -> None:
    def trained(tokens: int) -> Trained:
        done = learn(architecture, precision, Batching(PAD, tokens), ONE_STEP, lr=lr, **STEADY)
        return done.weights, done.rows[-1]["loss"], done.steps

    start = learned(engine_for((make_classifier if learn is by_reward else make_policy)(architecture, precision=precision)))
    assert_the_same(trained, start, longest, precision)


@METHODS
def test_how_a_step_of_ppo_is_cut_changes_nothing(architecture: str, precision: str, critic: dict[str, Any]) -> None:
    """Two epochs in float32, so that the second step sees ratios other than 1; there a value that bfloat16 rounds across
    the edge of its clip would turn a rounding into another step."""
    rate, epochs = 30.0, {"float32": 2, "bfloat16": 1}[precision]
    settings = ppo_settings(ppo_epochs=epochs, responses_per_minibatch=ROWS, lr=rate, critic_lr=rate, **critic)

    def table() -> tuple[Any, Any]:
        return ppo_table(settings, architecture, precision, STEADY, batching=Batching(PAD, 10_000))

    state, environment = table()
    start, rollout = _both(state), loop.sample(state, environment, settings)
    experience = assign_credit(rollout, settings, 0.1)

    def trained(tokens: int) -> Trained:
        state, environment = table()
        steps = [steps_of(engine) for engine in _engines(state)]
        figures = ppo_update.learn(state, experience, replace(environment, batching=Batching(PAD, tokens)), settings)
        losses = figures["policy_loss"] + figures.get("critic_loss", 0.0)
        return _both(state), losses, [step for seen in steps for step in seen]

    assert_the_same(trained, start, max(map(len, rollout.examples)), precision)


def _engines(state: Any) -> Sequence[TorchEngine]:
    return [engine for engine in (state.policy, state.critic) if engine]


def _both(state: Any) -> Tensor:
    return torch.cat([learned(engine) for engine in _engines(state)])
