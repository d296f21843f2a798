"""The reward model's loop: every untied pair of a prompt, prompts alike, whatever their number of responses."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from rlhf.maths.losses import ranking_loss
from rlhf.models.batching import Batching
from rlhf.models.forward import scores_of
from rlhf.models.reward import centre_scores
from rlhf.models.tokens import Example
from rlhf.training.loop import LoopState, Passes
from rlhf.training.reward import (
    RankedExamples,
    accuracy,
    report,
    score_rows,
    smoothed_loss,
    train_reward,
    trivial_accuracies,
)
from tests.helpers import ROUNDING, assert_near, float64
from tests.maths import twins
from tests.maths.batches import numbers
from tests.models.tiny_models import PAD, make_classifier, random_examples
from tests.training.table import STEADY, TOKENS, engine_for, weights


def ranked(*ranks: int, seed: int = 0) -> RankedExamples:
    """As many responses to one prompt as there are ranks."""
    examples = random_examples(len(ranks), seed=seed)
    return RankedExamples([Example(examples[0].prompt_ids, e.response_ids) for e in examples], list(ranks))


ROWS = [
    ranked(1, 0, seed=1),
    ranked(0, 1, 2, seed=2),
    ranked(2, 0, 0, 1, seed=3),
    ranked(0, 5, seed=4),
    ranked(1, 1, 0, seed=5),
]


def train(
    model: PreTrainedModel,
    rows: list[RankedExamples],
    epochs: int = 1,
    lr: float = 1e-2,
    tokens: int = TOKENS,
    label_smoothing: float = 0.0,
    **adamw: float,
) -> list[dict[str, float]]:
    passes = Passes(epochs, rows_per_step=len(rows), eval_every_steps=2, seed=1)
    state = LoopState(engine_for(model, lr, epochs, **adamw))
    return list(train_reward(state, rows, rows, passes, Batching(PAD, tokens), label_smoothing))


def test_a_head_of_zeros_loses_ln_2_and_is_right_half_the_time(architecture: str, precision: str) -> None:
    model = make_classifier(architecture, precision=precision)
    torch.nn.init.zeros_(model.score.weight)
    (row,) = train(model, ROWS)
    assert_near(row["loss"], math.log(2), 1e-6)
    assert row["accuracy"] == 0.5


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("tokens", [1, 60, 10_000])
def test_the_loss_is_the_mean_over_prompts_of_the_mean_over_pairs(
    architecture: str, precision: str, tokens: int, label_smoothing: float
) -> None:
    model = make_classifier(architecture, precision=precision)
    scores = [[float(scores_of(model, [e], Batching(PAD, 1))) for e in row.examples] for row in ROWS]
    losses = [smoothed_twin(s, row.ranks, label_smoothing) for s, row in zip(scores, ROWS, strict=True)]
    pairs = [(s[i], s[j]) for s, row in zip(scores, ROWS, strict=True) for i, j in row.pairs()]
    (row,) = train(model, ROWS, tokens=tokens, label_smoothing=label_smoothing)
    assert_near(row["loss"], twins.mean(losses), ROUNDING[precision])
    assert_near(row["accuracy"], twins.mean([float(better > worse) for better, worse in pairs]), 1e-9)
    assert len(pairs) == 1 + 3 + 5 + 1 + 2


@pytest.mark.parametrize("scale", [True, False])
def test_centring_leaves_every_comparison_as_it_was(architecture: str, precision: str, scale: bool) -> None:
    model, batching = make_classifier(architecture, precision=precision), Batching(PAD, 60)
    sft_responses = random_examples(9, seed=7)
    before = score_rows(model, ROWS, batching)
    centre_scores(model, scores_of(model, sft_responses, batching), scale)
    after = score_rows(model, ROWS, batching)
    assert_near(scores_of(model, sft_responses, batching).double().mean(), 0.0, 1e-6)
    assert after != before
    assert accuracy(after, ROWS) == accuracy(before, ROWS)
    assert 0 < accuracy(before, ROWS) < 1


def smoothed_twin(scores: list[float], ranks: list[int], label_smoothing: float) -> float:
    """Of one prompt: each of its untied pairs is won with what is not smoothed, and lost with what is."""
    gaps = [a - b for a, i in zip(scores, ranks, strict=True) for b, j in zip(scores, ranks, strict=True) if i < j]
    return twins.mean([(1 - label_smoothing) * twins.nats_of_win(g) + label_smoothing * twins.nats_of_win(-g) for g in gaps])


@given(
    st.lists(st.tuples(numbers(), st.integers(0, 3)), min_size=2, max_size=5).filter(lambda r: len({x for _, x in r}) > 1),
    st.floats(0.0, 0.49),
)
def test_label_smoothing_against_the_twin(row: list[tuple[float, int]], label_smoothing: float) -> None:
    scores, ranks = [score for score, _ in row], [rank for _, rank in row]
    loss = smoothed_loss(float64([scores]), [RankedExamples([], ranks)], label_smoothing)
    assert_near(loss, smoothed_twin(scores, ranks, label_smoothing))


def test_a_smoothed_label_is_learnt_up_to_its_odds_and_no_further() -> None:
    """d/dg of (1 − s) log(1 + e^−g) + s log(1 + e^g) is 0 where σ(g) = 1 − s: at g = log 4 for s = 0.2."""
    gap = float64([[math.log(4), 0.0]]).requires_grad_()
    smoothed_loss(gap, [RankedExamples([], [0, 1])], 0.2).backward()
    assert_near(gap.grad, [[0.0, 0.0]])


@given(st.lists(st.tuples(numbers(), numbers(), st.booleans(), st.floats(0, 3)), min_size=1, max_size=5), st.floats(0, 0.49))
def test_margins_against_the_twin(batch: list[tuple[float, float, bool, float]], label_smoothing: float) -> None:
    """A pair's margin has to be won by whichever of the two is taken to be better."""
    rows = [RankedExamples([], [0, 7] if first else [3, 1], margin) for *_, first, margin in batch]
    losses = []
    for one, other, first, margin in batch:
        gap = one - other if first else other - one
        kept, lost = twins.nats_of_win(gap - margin), twins.nats_of_win(-gap - margin)
        losses.append((1 - label_smoothing) * kept + label_smoothing * lost)
    loss = smoothed_loss(float64([[one, other] for one, other, *_ in batch]), rows, label_smoothing)
    assert_near(loss, twins.mean(losses))


def test_a_step_learns_pairs_with_and_without_margins_beside_rankings() -> None:
    model = make_classifier("llama")
    rows = [replace(ROWS[0], margin=0.7), *ROWS[1:3], ROWS[3]]
    scores = score_rows(model, rows, Batching(PAD, TOKENS))
    gap = scores[0][1] - scores[0][0]  # ROWS[0] has its better response second
    losses = [twins.nats_of_win(gap - 0.7)]
    losses += [twins.ranking(s, row.ranks) for s, row in zip(scores[1:], rows[1:], strict=True)]
    assert_near(train(model, rows)[0]["loss"], twins.mean(losses), 1e-5)


def test_without_smoothing_the_loss_is_the_ranking_loss_bit_for_bit() -> None:
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    ranks = [[0, 1, 2], [1, 0, 0], [2, 1, 0], [0, 0, 1]]
    assert torch.equal(
        smoothed_loss(scores, [RankedExamples([], r) for r in ranks], 0.0), ranking_loss(scores, torch.tensor(ranks))
    )


def test_how_a_step_of_long_and_short_rankings_is_cut_changes_nothing() -> None:
    trained = {}
    for tokens in (1, 60, 10_000):
        model = make_classifier("llama")
        train(model, ROWS, lr=100.0, tokens=tokens, **STEADY)
        trained[tokens] = weights(model)
    assert float((trained[1] - weights(make_classifier("llama"))).abs().max()) > 1e-3
    assert_near(trained[1], trained[10_000], 1e-6)
    assert_near(trained[60], trained[10_000], 1e-6)


def test_a_model_learns_who_is_better() -> None:
    model = make_classifier("llama")
    rows = train(model, ROWS, epochs=40)
    assert rows[-1]["validation_accuracy"] == 1.0
    assert rows[-1]["loss"] < 0.1
    assert [row["step"] for row in rows if "validation_accuracy" in row] == list(range(2, 41, 2))


def test_accuracy_counts_pairs_and_an_equal_score_is_half_right() -> None:
    rows = [ranked(0, 1, 2), ranked(0, 1), ranked(1, 1, 0)]
    scores = [[3.0, 1.0, 2.0], [5.0, 5.0], [0.0, 4.0, 4.0]]
    # (0>1) right, (0>2) right, (1>2) wrong; half; (2>0) right, (2>1) half
    assert_near(accuracy(scores, rows), (1 + 1 + 0 + 0.5 + 1 + 0.5) / 6)


def test_what_needs_no_model_by_hand() -> None:
    prompt = [5]
    lengths = [(4, 2), (2, 4), (3, 3), (1, 2)]
    rows = [
        RankedExamples([Example(prompt, [7] * better), Example(prompt, [7] * worse)], [0, 1]) for better, worse in lengths
    ]
    assert trivial_accuracies(rows) == {"longer_wins": 1.5 / 4, "shorter_wins": 2.5 / 4}


def test_the_report_is_the_models_accuracy_and_loss_beside_those() -> None:
    model = make_classifier("gpt2")
    scores = score_rows(model, ROWS, Batching(PAD, 40))
    figures = report(scores, ROWS)
    assert figures["pairs"] == 12
    assert_near(figures["accuracy"], accuracy(scores, ROWS))
    losses = [twins.ranking(s, row.ranks) for s, row in zip(scores, ROWS, strict=True)]
    assert_near(figures["loss"], twins.mean(losses), 1e-5)
    assert figures["longer_wins"] + figures["shorter_wins"] == 1.0


def test_scores_stay_with_their_rows() -> None:
    model = make_classifier("llama")
    for scores, row in zip(score_rows(model, ROWS, Batching(PAD, 50)), ROWS, strict=True):
        assert_near(
            torch.tensor(scores), torch.stack([scores_of(model, [e], Batching(PAD, 1))[0] for e in row.examples]), 1e-5
        )


def test_stopping_and_going_on_gives_the_same_bits() -> None:
    whole, first, second = (make_classifier("llama") for _ in range(3))
    passes = Passes(epochs=6, rows_per_step=2, eval_every_steps=2, seed=7)
    adamw = {"final_lr_share": 0.1, "weight_decay": 0.1, "steps": passes.steps(len(ROWS))}

    def rows_from(state: LoopState) -> Iterator[dict[str, float]]:
        return train_reward(state, ROWS, ROWS[:2], passes, Batching(PAD, TOKENS), label_smoothing=0.1)

    expected = list(rows_from(LoopState(engine_for(whole, **adamw))))
    stopped = LoopState(engine_for(first, **adamw))
    before = list(islice(rows_from(stopped), 7))
    resumed = LoopState(engine_for(second, **adamw))
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    assert before + list(rows_from(resumed)) == expected
    assert torch.equal(weights(second), weights(whole))
