"""Slow twins of the maths: plain Python on plain lists, straight from the definitions of docs/spec.md.

A twin sees the real tokens only, a list a response, so it cannot be wrong about padding.
"""

from __future__ import annotations

import math
from itertools import combinations

Rows = list[list[float]]


def every(rows: Rows) -> list[float]:
    return [x for row in rows for x in row]


def mean(xs: list[float]) -> float:
    return math.fsum(xs) / len(xs)


def variance(xs: list[float]) -> float:
    centre = mean(xs)
    return mean([(x - centre) ** 2 for x in xs])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def nats_of_win(difference: float) -> float:
    """-log sigmoid(difference)"""
    return math.log1p(math.exp(-abs(difference))) + max(-difference, 0.0)


def rewards(score: float, logprobs: list[float], ref_logprobs: list[float], kl_ctl: float) -> list[float]:
    paid = [-kl_ctl * (p - q) for p, q in zip(logprobs, ref_logprobs, strict=True)]
    return [*paid[:-1], paid[-1] + score]


def deltas(paid: list[float], values: list[float], gamma: float) -> list[float]:
    following = [*values[1:], 0.0]
    return [r + gamma * after - now for r, now, after in zip(paid, values, following, strict=True)]


def gae(paid: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """A_t as the double sum over all later steps, not the recursion."""
    steps = deltas(paid, values, gamma)
    return [sum((gamma * lam) ** (k - t) * steps[k] for k in range(t, len(steps))) for t in range(len(steps))]


def surrogate(logprob: float, old: float, advantage: float, clip_range: float) -> float:
    """min(A ratio, A clip(ratio)), of one token."""
    ratio = math.exp(logprob - old)
    clipped = min(max(ratio, 1 - clip_range), 1 + clip_range)
    return min(advantage * ratio, advantage * clipped)


def critic_error(value: float, old: float, target: float, value_clip: float | None) -> float:
    error = (value - target) ** 2
    if value_clip is not None:
        clipped = min(max(value, old - value_clip), old + value_clip)
        error = max(error, (clipped - target) ** 2)
    return error / 2


def ranking(scores: list[float], ranks: list[int]) -> float:
    """Of one prompt: mean over its untied pairs."""
    pairs = [
        (i, j) if ranks[i] < ranks[j] else (j, i) for i, j in combinations(range(len(ranks)), 2) if ranks[i] != ranks[j]
    ]
    return mean([nats_of_win(scores[better] - scores[worse]) for better, worse in pairs]) if pairs else 0.0


def expected_wins(scores: list[float], met: Rows) -> list[float]:
    """How many of its `met[i][j]` comparisons each item wins, if `scores` are right."""
    every_item = range(len(scores))
    return [sum(met[i][j] * sigmoid(scores[i] - scores[j]) for j in every_item) for i in every_item]
