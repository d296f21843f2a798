"""One step of TRL's DPOTrainer against ours, on the same pairs of ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor

from rlhf.models.batching import Batching
from rlhf.models.tokens import Example
from rlhf.training.dpo import PairedExamples, train_dpo, with_reference
from rlhf.training.loop import LoopState, Passes
from tests.helpers import assert_near
from tests.models.tiny_models import PAD, make_policy, random_ids, words_tokenizer
from tests.parity.descent import ADAMW, EPSILON, ONE_STEP, RATE, SAME, their_descent
from tests.training.table import TOKENS, dpo_settings, engine_for, weights

BETA = 0.3
SMOOTHING = 0.2
POLICY, REFERENCE = 0, 1  # seeds


def row_of(lengths: list[int], pairs: list[tuple[int, int]], seed: int) -> PairedExamples:
    """A prompt, responses to it of these lengths, and the (chosen, rejected) pairs among them."""
    prompt, *responses = random_ids(1 + len(lengths), 9, seed).tolist()
    return PairedExamples([Example(prompt[: 2 + seed], ids[:n]) for ids, n in zip(responses, lengths, strict=True)], pairs)


ROWS = [row_of([4, 7], [(0, 1)], 1), row_of([2, 5, 9], [(0, 1), (0, 2), (1, 2)], 2), row_of([6, 3], [(1, 0)], 3)]


@dataclass(frozen=True)
class Step:
    """The loss before a step, what it moved of the weights, and the margin of the implicit rewards before it."""

    loss: float
    moved: Tensor
    margin: float


def their_step(dpo_trainer: ModuleType, folder: Path, rows: list[PairedExamples], loss: str, **changes: Any) -> Step:
    pairs = [
        {
            "prompt_ids": row.examples[chosen].prompt_ids,
            "chosen_ids": row.examples[chosen].response_ids,
            "rejected_ids": row.examples[rejected].response_ids,
        }
        for row in rows
        for chosen, rejected in row.pairs
    ]
    policy = make_policy("llama", POLICY)
    settings = {"loss_type": loss, "beta": BETA, "per_device_train_batch_size": len(pairs)}
    trainer = dpo_trainer.DPOTrainer(
        model=policy,
        ref_model=make_policy("llama", REFERENCE),
        args=dpo_trainer.DPOConfig(output_dir=str(folder), **ONE_STEP | settings | changes),
        train_dataset=Dataset.from_list([{"prompt": "one", "chosen": " two", "rejected": " three"}]),
        processing_class=words_tokenizer("one two three"),
        optimizers=their_descent(policy.parameters()),
    )
    trainer.train_dataset = Dataset.from_list(pairs)  # ids as they are, which its own tokenizing would not let through
    with torch.no_grad():
        before = float(trainer.compute_loss(policy, trainer.data_collator(pairs)))
    (margin,) = trainer._metrics["train" if policy.training else "eval"]["rewards/margins"]
    start = weights(policy)
    trainer.train()
    return Step(before, weights(policy) - start, margin)


def our_step(rows: list[PairedExamples], loss: str, label_smoothing: float = 0.0, beta: float = BETA) -> Step:
    """In micro-batches, where theirs is one batch."""
    batching = Batching(PAD, TOKENS)
    referred = with_reference(make_policy("llama", REFERENCE), rows, batching)
    policy = make_policy("llama", POLICY)
    start = weights(policy)
    state = LoopState(engine_for(policy, RATE * EPSILON, 1, **ADAMW))
    settings = dpo_settings(loss=loss, beta=beta, label_smoothing=label_smoothing)
    _, row = train_dpo(state, referred, [], Passes(1, len(rows), 1, seed=0), batching, None, settings)
    return Step(row["loss"], weights(policy) - start, row["reward_margin"])


@pytest.mark.parametrize("loss", ["sigmoid", "hinge"])
def test_loss_and_step_are_theirs(dpo_trainer: ModuleType, tmp_path: Path, loss: str) -> None:
    theirs, ours = their_step(dpo_trainer, tmp_path, ROWS, loss), our_step(ROWS, loss)
    assert_near(ours.loss, theirs.loss, SAME)
    assert_near(ours.margin, theirs.margin, SAME)
    assert float(theirs.moved.abs().max()) > 100 * SAME
    assert_near(ours.moved, theirs.moved, SAME)


def test_their_sigmoid_is_deaf_to_label_smoothing(dpo_trainer: ModuleType, tmp_path: Path) -> None:
    """It is read by `robust`, `exo_pair` and `aot` alone; ours is the conservative DPO of Mitchell (2023)."""
    theirs = their_step(dpo_trainer, tmp_path, ROWS, "sigmoid", label_smoothing=SMOOTHING)
    assert_near(our_step(ROWS, "sigmoid").loss, theirs.loss, SAME)
    assert abs(our_step(ROWS, "sigmoid", SMOOTHING).loss - theirs.loss) > 100 * SAME


@pytest.mark.parametrize("pair", [ROWS[0], ROWS[2]])
def test_conservative_dpo_is_their_aot_of_one_pair(dpo_trainer: ModuleType, tmp_path: Path, pair: PairedExamples) -> None:
    """`aot` sorts the batch's log-ratios first; a batch of one pair has nothing to sort, and is smoothed as ours is."""
    theirs = their_step(dpo_trainer, tmp_path, [pair], "aot", label_smoothing=SMOOTHING)
    ours = our_step([pair], "sigmoid", SMOOTHING)
    assert_near(ours.loss, theirs.loss, SAME)
    assert_near(ours.moved, theirs.moved, SAME)


def test_robust_dpo_pushes_the_other_way(dpo_trainer: ModuleType, tmp_path: Path) -> None:
    """With s wrong labels `robust` (Chowdhury et al. 2024) is DPO - s / (1 - 2 s) of the mean margin, conservative DPO is
    DPO + s of it: unbiased in one, drawn to a bounded margin in the other."""
    plain = our_step(ROWS, "sigmoid")
    theirs = their_step(dpo_trainer, tmp_path, ROWS, "robust", label_smoothing=SMOOTHING)
    assert_near(plain.loss - SMOOTHING / (1 - 2 * SMOOTHING) * plain.margin, theirs.loss, SAME)
    assert_near(our_step(ROWS, "sigmoid", SMOOTHING).loss, plain.loss + SMOOTHING * plain.margin, SAME)


def test_ipo_is_theirs_on_responses_of_one_token(dpo_trainer: ModuleType, tmp_path: Path) -> None:
    rows = [row_of([1, 1], [(0, 1)], seed) for seed in range(4)]
    theirs, ours = their_step(dpo_trainer, tmp_path, rows, "ipo"), our_step(rows, "ipo")
    assert_near(ours.loss, theirs.loss, SAME)
    assert_near(ours.moved, theirs.moved, SAME)


def test_ipo_is_a_mean_over_tokens_in_theirs(dpo_trainer: ModuleType, tmp_path: Path) -> None:
    """Azar et al. (2024) write the log-probability of a response, its sum; TRL divides it by the response's length.

    Where all have n tokens theirs at beta is ours at beta / n, divided by n squared. Otherwise no beta joins the two.
    """
    n = 5
    rows = [row_of([n, n], [(0, 1)], seed) for seed in range(4)]
    theirs, ours = their_step(dpo_trainer, tmp_path, rows, "ipo"), our_step(rows, "ipo", beta=BETA / n)
    assert_near(ours.loss / n**2, theirs.loss, SAME)
    assert_near(ours.moved / n**2, theirs.moved, SAME)
    assert abs(our_step(rows, "ipo").loss - theirs.loss) > 100 * SAME
