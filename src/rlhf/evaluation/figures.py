"""The figures of metrics.json, from answers and what they are held against (SPEC section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from rlhf.data.words import words
from rlhf.evaluation.answers import Answers, Figures
from rlhf.evaluation.length_control import length_controlled_win_rate
from rlhf.evaluation.measures import distinct, rouge_l, share_closed
from rlhf.evaluation.statistics import Floats, bootstrap, pairwise_accuracy, spearman, wins


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What the answers of one way of decoding are held against."""

    sft: Answers  # where the way to a perfect answer starts
    opponent: Answers  # SFT's answers that a win is counted against
    perfect: Floats | None  # (N,) gold scores of perfect answers; None where nobody knows such answers
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
    if not answers.gold:
        return {}
    accuracy, pairs = agreement([answers, yardstick.opponent])
    means = {name: float(values.mean()) for name, values in answers.gold.items()}
    return means | {
        "gold_interval": _interval(answers.gold["gold_score"], yardstick),
        "share_closed": _share_closed(means["gold_score"], len(answers.texts), yardstick),
        "reward_agreement": accuracy if pairs else None,  # against SFT's answers
    }


def _share_closed(score: float, prompts: int, yardstick: Yardstick) -> float | None:
    """Of a mean gold score on the first so many prompts; None where no perfect answers are known."""
    if yardstick.perfect is None:
        return None
    start, end = yardstick.sft.gold["gold_score"][:prompts].mean(), yardstick.perfect[:prompts].mean()
    return share_closed(score, float(start), float(end))


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
    """The reward model, and "the longer answer wins", held against the gold scores of the answers of several models."""
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
    score = float(best.mean())
    closed = _share_closed(score, len(best), yardstick)
    return {"gold_score": score} | ({} if closed is None else {"share_closed": closed}) | {"prompts": len(best)}


def has_gold_scores(metrics: Figures) -> bool:
    """Whether the answers behind a metrics.json have gold scores, or the reward model's alone."""
    return any("gold_score" in figures for name, figures in metrics.items() if name != "yardsticks")
