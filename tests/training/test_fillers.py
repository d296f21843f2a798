"""What stands after the end of a response is nothing to any loop: not to what is paid, not to KL, not to a weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf.models.batching import Batching
from rlhf.models.generation import Decoding
from rlhf.training import ppo as loop
from rlhf.training.loop import Passes
from rlhf.training.ppo import train_ppo
from rlhf.training.rollout import assign_credit
from tests.models.tiny_models import EOS, PAD
from tests.training.by_loop import Learner, by_dpo, by_reward, by_sft
from tests.training.table import METHODS, TOKENS, ppo_settings, ppo_table, weights

WORD = 9
FILLERS = (PAD, WORD, EOS)  # a token that says nothing, one that does, and the end token once more
PASSES = Passes(epochs=2, rows_per_step=4, eval_every_steps=1, seed=0)


def assert_all_the_same(learned: list[tuple[list[dict[str, float]], Tensor]]) -> None:
    """The rows of figures, and the weights."""
    (rows, end), *others = learned
    assert len(rows) > 1
    for other_rows, other_end in others:
        assert other_rows == rows
        assert torch.equal(other_end, end)


@pytest.mark.parametrize("learn", [by_sft, by_reward, by_dpo], ids=["sft", "reward", "dpo"])
def test_what_fills_a_batch_up_is_nothing_to_a_loop(learn: Learner, architecture: str, precision: str) -> None:
    learned = [learn(architecture, precision, Batching(filler, TOKENS), PASSES) for filler in FILLERS]
    assert_all_the_same([(each.rows, each.weights) for each in learned])


@METHODS
def test_what_stands_after_the_end_is_nothing_to_ppo(architecture: str, precision: str, critic: dict[str, Any]) -> None:
    """Nor is what stands before a prompt while responses are sampled."""
    settings = ppo_settings(stop={"steps": 1, "kl_budget": 0.0, "plateau_evaluations": 0}, **critic)
    learned, earned = [], []
    for filler in FILLERS:
        changes = {"batching": Batching(filler, TOKENS), "decoding": Decoding(EOS, filler, 6)}
        state, environment = ppo_table(settings, architecture, precision, **changes)
        rollout = loop.sample(state, environment, settings)
        assert not rollout.response_mask.all()
        experience = assign_credit(rollout, settings, 0.1)
        earned.append(torch.stack([rollout.old_logprobs, rollout.ref_logprobs, rollout.values, experience.rewards]))
        rows = list(train_ppo(state, environment, settings))
        learned.append((rows, weights(state.policy.model)))
    assert_all_the_same(learned)
    assert all(torch.equal(other, earned[0]) for other in earned)
