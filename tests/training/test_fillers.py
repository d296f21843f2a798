"""What stands after the end of a response is nothing to any loop: not to what is paid, not to KL, not to a weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf.models.forward import Batching
from rlhf.models.generation import Decoding
from rlhf.training import ppo as loop
from rlhf.training.dpo import PairedExamples, train_dpo, with_reference
from rlhf.training.loop import LoopState, Passes
from rlhf.training.ppo import train_ppo
from rlhf.training.reward import RankedExamples, train_reward
from rlhf.training.rollout import assign_credit
from rlhf.training.sft import train_sft
from tests.models.tiny_models import EOS, PAD, make_classifier, make_policy, random_examples
from tests.training.table import METHODS, TOKENS, dpo_settings, engine_for, ppo_settings, ppo_table, weights

WORD = 9
FILLERS = (PAD, WORD, EOS)  # a token that says nothing, one that does, and the end token once more
PASSES = Passes(epochs=2, rows_per_step=4, eval_every_steps=1, seed=0)
EXAMPLES = random_examples(8, seed=4)
Learned = tuple[list[dict[str, float]], Tensor]  # the rows of figures, and the weights


def by_sft(architecture: str, precision: str, batching: Batching) -> Learned:
    policy = make_policy(architecture, precision=precision)
    rows = train_sft(LoopState(engine_for(policy)), EXAMPLES, EXAMPLES[:3], PASSES, batching)
    return list(rows), weights(policy)


def by_reward(architecture: str, precision: str, batching: Batching) -> Learned:
    model = make_classifier(architecture, precision=precision)
    ranked = [RankedExamples(EXAMPLES[i : i + 2], [1, 0]) for i in range(0, 8, 2)]
    rows = train_reward(LoopState(engine_for(model)), ranked, ranked[:2], PASSES, batching, 0.0)
    return list(rows), weights(model)


def by_dpo(architecture: str, precision: str, batching: Batching) -> Learned:
    policy, reference = (make_policy(architecture, seed, precision) for seed in (0, 1))
    paired = [PairedExamples(EXAMPLES[i : i + 2], [(1, 0)]) for i in range(0, 8, 2)]
    asked = with_reference(reference, paired, batching)
    rows = train_dpo(LoopState(engine_for(policy)), asked, asked[:2], PASSES, batching, None, dpo_settings())
    return list(rows), weights(policy)


def assert_all_the_same(learned: list[Learned]) -> None:
    (rows, end), *others = learned
    assert len(rows) > 1
    for other_rows, other_end in others:
        assert other_rows == rows
        assert torch.equal(other_end, end)


@pytest.mark.parametrize("trained", [by_sft, by_reward, by_dpo], ids=["sft", "reward", "dpo"])
def test_what_fills_a_batch_up_is_nothing_to_a_loop(trained: Any, architecture: str, precision: str) -> None:
    assert_all_the_same([trained(architecture, precision, Batching(filler, TOKENS)) for filler in FILLERS])


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
