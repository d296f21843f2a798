"""The reward model: a scalar head that learns whole rankings (SPEC eq. 2, 3)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.maths.losses import ranking_loss, reward_model_loss
from rlhf.models.batching import Batching
from rlhf.models.forward import response_scores, scores_of
from rlhf.models.tokens import Example, collate, encode_response, fit
from rlhf.records import Ranking, Responses, untied_pairs
from rlhf.runtime.engine import Engine
from rlhf.training.loop import LoopState, Passes


@dataclass(frozen=True, slots=True)
class RankedExamples:
    """One prompt's distinct responses as ids, and their ranks: a lower rank is better.

    Of two responses the better one has to win by `margin`, in reward units.
    """

    examples: list[Example]
    ranks: list[int]
    margin: float = 0.0

    def pairs(self) -> list[tuple[int, int]]:
        """(better, worse) places of every untied pair."""
        return untied_pairs(self.ranks)


@dataclass(frozen=True, slots=True)
class RankedRows:
    """What became of rankings that had to fit the context; `tied` had no ordered pair of distinct responses.

    `rankings` are those that the rows are made of, row by row, each response once.
    """

    rows: list[RankedExamples]
    rankings: list[Ranking]
    truncated: int
    dropped: int
    tied: int


def ranked_examples(rankings: Sequence[Ranking], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> RankedRows:
    """Rankings as ids; a ranking is dropped only if one of its responses leaves no room for the prompt."""
    rows, kept, truncated, dropped, tied = [], [], 0, 0, 0
    for ranking in rankings:
        distinct = {(r.text, r.ended): (r, rank) for r, rank in zip(ranking.responses, ranking.ranks, strict=True)}
        responses, ranks = zip(*distinct.values(), strict=True)
        if len(set(ranks)) < 2:
            tied += 1
            continue
        encoded = [encode_response(tokenizer, r.text, r.ended, r.token_ids) for r in responses]
        fitted = fit(tokenizer, ranking.prompt, encoded, max_tokens)
        if fitted is None:
            dropped += 1
            continue
        truncated += fitted.truncated
        kept.append(replace(ranking, responses=responses, ranks=ranks))
        rows.append(RankedExamples(fitted.examples, list(ranks), ranking.margin))
    return RankedRows(rows, kept, truncated, dropped, tied)


def train_reward(
    state: LoopState,
    train: Sequence[RankedExamples],
    validation: Sequence[RankedExamples],
    passes: Passes,
    batching: Batching,
    label_smoothing: float,
) -> Iterator[dict[str, float]]:
    """Steps to the end of the last epoch; a row each, with the accuracy on validation every so often and at the end."""
    model = state.engine.model
    assert isinstance(model, PreTrainedModel)
    while state.step < passes.steps(len(train)):
        rows = passes.draw(len(train), state.step)
        row = _learn(state.engine, model, [train[i] for i in rows], label_smoothing, batching)
        state.step += 1
        if validation and passes.evaluates(len(train), state.step):
            with state.engine.whole():
                row["validation_accuracy"] = accuracy(score_rows(model, validation, batching), validation)
        yield {"step": state.step} | row


def _learn(
    engine: Engine, model: PreTrainedModel, rows: Sequence[RankedExamples], label_smoothing: float, batching: Batching
) -> dict[str, float]:
    """One step on the mean over the step's prompts; all pairs of a prompt stay together."""
    device = next(model.parameters()).device

    def loss_of(part: list[RankedExamples]) -> tuple[Tensor, tuple[float, list[float]]]:
        batch = collate([e for row in part for e in row.examples], batching.pad_id).to(device)
        scores = response_scores(model, batch).view(len(part), -1)
        loss = smoothed_loss(scores, part, label_smoothing) * (len(part) / len(rows))
        return loss, (loss.item(), _pairs_right(scores.tolist(), part))

    done = engine.step(_equal_sized_parts(rows, batching), loss_of)
    losses, right = [loss for loss, _ in done.told], [won for _, pairs in done.told for won in pairs]
    return {"loss": sum(losses), "accuracy": sum(right) / len(right), "gradient_norm": done.norm, "lr": engine.lr}


def smoothed_loss(scores: Tensor, rows: Sequence[RankedExamples], label_smoothing: float) -> Tensor:
    """SPEC eq. 2, 3, and with label smoothing s: (1 − s) of it plus s of the same with every order reversed. In nats.

    scores: (B, K), reward units, of B rows with K responses each. label_smoothing: the share of labels taken to be wrong.
    """
    ranks = torch.tensor([row.ranks for row in rows], device=scores.device)
    margins = [row.margin for row in rows]
    right = _loss(scores, ranks, margins)
    if not label_smoothing:
        return right
    return (1 - label_smoothing) * right + label_smoothing * _loss(scores, -ranks, margins)


def _loss(scores: Tensor, ranks: Tensor, margins: Sequence[float]) -> Tensor:
    """Where there are margins K is 2, and no row is a tie."""
    if not any(margins):
        return ranking_loss(scores, ranks)
    chosen, rejected = scores.gather(1, ranks.argsort(1)).unbind(1)
    return reward_model_loss(chosen, rejected, scores.new_tensor(margins))


def _equal_sized_parts(rows: Sequence[RankedExamples], batching: Batching) -> list[list[RankedExamples]]:
    """Micro-batches of whole prompts with as many responses each, so that their scores are a (B, K) tensor."""
    parts = []
    for k in sorted({len(row.ranks) for row in rows}):
        alike = [row for row in rows if len(row.ranks) == k]
        lengths = [k * max(len(e) for e in row.examples) for row in alike]
        parts += [[alike[i] for i in group] for group in batching.cut(lengths)]
    return parts


def score_rows(model: PreTrainedModel, rows: Sequence[RankedExamples], batching: Batching) -> list[list[float]]:
    """The scores of every row's responses, without gradients."""
    flat = scores_of(model, [e for row in rows for e in row.examples], batching).tolist()
    ends = torch.tensor([0] + [len(row.ranks) for row in rows]).cumsum(0).tolist()
    return [flat[start:end] for start, end in itertools.pairwise(ends)]


def accuracy(scores: Sequence[Sequence[float]], rows: Sequence[RankedExamples]) -> float:
    """The share of all untied pairs whose better response scores higher; an equal score is half right."""
    right = _pairs_right(scores, rows)
    return sum(right) / len(right)


def _pairs_right(scores: Sequence[Sequence[float]], rows: Sequence[RankedExamples]) -> list[float]:
    return [
        0.5 if row_scores[better] == row_scores[worse] else float(row_scores[better] > row_scores[worse])
        for row_scores, row in zip(scores, rows, strict=True)
        for better, worse in row.pairs()
    ]


def trivial_accuracies(rows: Sequence[RankedExamples]) -> dict[str, float]:
    """What needs no model: the longer response wins, or the shorter one (by tokens)."""
    longer = accuracy(lengths_of(rows), rows)
    return {"longer_wins": longer, "shorter_wins": 1 - longer}


def lengths_of(rows: Sequence[RankedExamples]) -> list[list[float]]:
    """Tokens of every row's responses."""
    return [[float(len(e.response_ids)) for e in row.examples] for row in rows]


def sampled_examples(responses: Sequence[Responses], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[Example]:
    """The SFT model's own train responses as examples: what the scores are centred on."""
    fitted = [
        fit(
            tokenizer,
            row.prompt,
            [encode_response(tokenizer, response.text, response.ended, response.token_ids)],
            max_tokens,
        )
        for row in responses
        for response in row.responses
        if row.split == "train" and response.model == "sft"
    ]
    return [example for f in fitted if f is not None for example in f.examples]


def report(scores: Sequence[Sequence[float]], rows: Sequence[RankedExamples]) -> dict[str, float]:
    """Accuracy over the rows' pairs beside what needs no model, and the mean loss: of the labels as they are, without
    margins and smoothing, so that it means the same whatever was learnt with."""
    losses = [
        float(ranking_loss(torch.tensor([list(s)]), torch.tensor([row.ranks]))) for s, row in zip(scores, rows, strict=True)
    ]
    pairs = sum(len(row.pairs()) for row in rows)
    return {"accuracy": accuracy(scores, rows), "loss": sum(losses) / len(losses), "pairs": pairs} | trivial_accuracies(rows)
