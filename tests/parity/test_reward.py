"""One step of TRL's RewardTrainer against ours, on the same ids."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import ModuleType

import pytest
import torch
from datasets import Dataset
from torch import Tensor

from rlhf.models.batching import Batching
from rlhf.models.tokens import Example
from rlhf.training.loop import LoopState, Passes
from rlhf.training.reward import RankedExamples, train_reward
from tests.helpers import assert_near
from tests.models.tiny_models import PAD, make_classifier, random_examples, words_tokenizer
from tests.parity.descent import ADAMW, EPSILON, ONE_STEP, RATE, SAME, their_descent
from tests.training.table import TOKENS, engine_for, weights


def ranked(k: int, seed: int) -> RankedExamples:
    """K responses to one prompt, the best first."""
    examples = random_examples(k, seed=seed)
    return RankedExamples([Example(examples[0].prompt_ids, e.response_ids) for e in examples], list(range(k)))


PAIRS = [ranked(2, seed) for seed in range(6)]
MARGINS = [replace(row, margin=0.25 * (1 + i)) for i, row in enumerate(PAIRS)]


def their_step(
    reward_trainer: ModuleType, folder: Path, rows: list[RankedExamples], margins: bool = False
) -> tuple[float, Tensor]:
    """The loss before a step, and what the step moved of the weights."""
    pairs = [
        {"chosen_ids": better.prompt_ids + better.response_ids, "rejected_ids": worse.prompt_ids + worse.response_ids}
        | ({"margin": row.margin} if margins else {})
        for row in rows
        for better, worse in combinations(row.examples, 2)
    ]
    model = make_classifier("llama")
    trainer = reward_trainer.RewardTrainer(
        model=model,
        args=reward_trainer.RewardConfig(output_dir=str(folder), per_device_train_batch_size=len(pairs), **ONE_STEP),
        train_dataset=Dataset.from_list(pairs),
        processing_class=words_tokenizer("one two three"),
        optimizers=their_descent(model.parameters()),
    )
    with torch.no_grad():
        loss = float(trainer.compute_loss(model, trainer.data_collator(pairs)))
    start = weights(model)
    trainer.train()
    return loss, weights(model) - start


def our_step(rows: list[RankedExamples]) -> tuple[float, Tensor]:
    """In micro-batches, where theirs is one batch."""
    model = make_classifier("llama")
    start = weights(model)
    state = LoopState(engine_for(model, RATE * EPSILON, 1, **ADAMW))
    (row,) = train_reward(state, rows, [], Passes(1, len(rows), 1, seed=0), Batching(PAD, TOKENS), label_smoothing=0.0)
    return row["loss"], weights(model) - start


@pytest.mark.parametrize("rows", [PAIRS, MARGINS], ids=["plain", "margins"])
def test_loss_and_step_are_theirs(reward_trainer: ModuleType, tmp_path: Path, rows: list[RankedExamples]) -> None:
    their_loss, their_move = their_step(reward_trainer, tmp_path, rows, margins=rows is MARGINS)
    loss, move = our_step(rows)
    assert_near(loss, their_loss, SAME)
    assert float(their_move.abs().max()) > 100 * SAME
    assert_near(move, their_move, SAME)


def test_a_margin_is_not_lost(reward_trainer: ModuleType, tmp_path: Path) -> None:
    assert abs(our_step(MARGINS)[0] - their_step(reward_trainer, tmp_path, PAIRS)[0]) > 1e-2


def test_rankings_of_one_size_are_their_mean_over_pairs(reward_trainer: ModuleType, tmp_path: Path) -> None:
    rows = [ranked(4, seed) for seed in range(3)]
    their_loss, their_move = their_step(reward_trainer, tmp_path, rows)
    loss, move = our_step(rows)
    assert_near(loss, their_loss, SAME)
    assert_near(move, their_move, SAME)


def test_rankings_of_several_sizes_weigh_by_prompt_and_by_pair_in_theirs(reward_trainer: ModuleType, tmp_path: Path) -> None:
    """Theirs knows pairs only: a prompt with six of them counts six times. Ours is Ouyang et al. (2022, eq. 1)."""
    rows = [ranked(2, 0), ranked(4, 1)]
    alone = [their_step(reward_trainer, tmp_path, [row])[0] for row in rows]
    assert_near(our_step(rows)[0], sum(alone) / 2, SAME)
    together, _ = their_step(reward_trainer, tmp_path, rows)
    assert_near((alone[0] + 6 * alone[1]) / 7, together, SAME)
    assert abs(our_step(rows)[0] - together) > 100 * SAME
