"""The figures of metrics.json, from answers and what they are held against (SPEC section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rlhf.data.words import words
from rlhf.evaluation.answers import Answers
from rlhf.evaluation.length_control import length_controlled_win_rate
from rlhf.evaluation.measures import distinct, rouge_l, share_closed
from rlhf.evaluation.statistics import Floats, bootstrap, pairwise_accuracy, spearman, wins

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What the answers of one way of decoding are held against."""

    sft: Answers  # where the way to a perfect answer starts
    opponent: Answers  # SFT's answers that a win is counted against
    perfect: Floats | None  # (N,) gold scores of perfect answers; None without a gold rater
    references: list[str | None]  # a demonstration of each prompt, where there is one
    bootstrap_samples: int
    seed: int


def figures_of(answers: Answers, nll: float | None, yardstick: Yardstick) -> Figures:
    """Everything said of one model under one way of decoding. A figure that something is missing for is absent.

    nll: of held-out demonstrations under the model, nats per response token.
    """
    won = wins(answers.judged, yardstick.opponent.judged)
    figures = _gold_figures(answers, yardstick) | {
        "win_rate": _interval(won, yardstick),
        "win_rate_at_equal_length": asdict(length_controlled_win_rate(won, answers.tokens - yardstick.opponent.tokens)),
        "wins": float(np.mean(won == 1)),
        "ties": float(np.mean(won == 0.5)),
        "losses": float(np.mean(won == 0)),
        "reward_score": float(answers.rewards.mean()),
        "reward_interval": _interval(answers.rewards, yardstick),
        "kl_per_response": None if answers.kl is None else float(answers.kl.mean()),
        "response_tokens": float(answers.tokens.mean()),
        "ended": float(answers.ended.mean()),
        "nll_demonstrations": nll,
    }
    return {name: value for name, value in (figures | _text_figures(answers, yardstick)).items() if value is not None}


def _interval(values: Floats, yardstick: Yardstick) -> dict[str, float]:
    return asdict(bootstrap(values, yardstick.bootstrap_samples, yardstick.seed))


def _gold_figures(answers: Answers, yardstick: Yardstick) -> Figures:
    if yardstick.perfect is None:
        return {}
    accuracy, pairs = agreement([answers, yardstick.opponent])
    means = {name: float(values.mean()) for name, values in answers.gold.items()}
    start, end = float(yardstick.sft.gold["gold_score"].mean()), float(yardstick.perfect.mean())
    return means | {
        "gold_interval": _interval(answers.gold["gold_score"], yardstick),
        "share_closed": share_closed(means["gold_score"], start, end),
        "reward_agreement": accuracy if pairs else None,  # against SFT's answers
    }


def _text_figures(answers: Answers, yardstick: Yardstick) -> Figures:
    said = [words(text) for text in answers.texts]
    overlaps = [rouge_l(ours, words(ref)) for ours, ref in zip(said, yardstick.references, strict=True) if ref is not None]
    return {
        "rouge_l": float(np.mean(overlaps)) if overlaps else None,
        "distinct_1": distinct(said, 1),
        "distinct_2": distinct(said, 2),
    }


def agreement(answers: Sequence[Answers]) -> tuple[float, int]:
    """How often the reward model puts two models' answers to one prompt in the gold order, and on how many pairs."""
    rewards = np.stack([a.rewards for a in answers], axis=1)
    return pairwise_accuracy(rewards, np.stack([a.gold["gold_score"] for a in answers], axis=1))


def reward_model_figures(answers: Sequence[Answers]) -> Figures:
    """The reward model, and "the longer answer wins", held against the gold rater over the answers of several models."""
    gold = np.stack([a.gold["gold_score"] for a in answers], axis=1)
    accuracy, pairs = agreement(answers)
    longer, _ = pairwise_accuracy(np.stack([a.tokens for a in answers], axis=1), gold)
    rewards = np.concatenate([a.rewards for a in answers])
    return {
        "pairwise_accuracy": accuracy,
        "longer_wins_accuracy": longer,
        "pairs": pairs,
        "spearman": spearman(rewards, np.concatenate([a.gold["gold_score"] for a in answers])),
    }


def best_gold_figures(best: Floats, yardstick: Yardstick) -> Figures:
    """What is possible: the gold scores (n,) of the best answers there were to the first n prompts, beside SFT's there."""
    assert yardstick.perfect is not None
    sft, perfect = yardstick.sft.gold["gold_score"][: len(best)].mean(), yardstick.perfect[: len(best)].mean()
    score = float(best.mean())
    return {"gold_score": score, "share_closed": share_closed(score, float(sft), float(perfect)), "prompts": len(best)}
