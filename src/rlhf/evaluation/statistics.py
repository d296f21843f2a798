"""Means with their uncertainty, and how far two judges agree: numpy only.

N counts prompts. An interval says how the figure would move with other prompts drawn from the same source, nothing more:
another seed of training is another source of doubt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95  # of every interval
RESAMPLED_AT_ONCE = 2**22  # numbers: bounds the memory of a bootstrap


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the ends of its 95 % interval, in the unit of what was measured."""

    mean: float
    low: float
    high: float


def bootstrap(values: Floats, samples: int, seed: int) -> Interval:
    """The mean of (N,) values, with its percentile bootstrap interval over prompts (Efron 1979).

    The same N, samples and seed draw the same prompts, whatever the values: intervals of several models are paired.
    """
    generator = np.random.default_rng(seed)
    at_once = max(1, RESAMPLED_AT_ONCE // len(values))
    sizes = [min(at_once, samples - start) for start in range(0, samples, at_once)]
    means = np.concatenate([values[generator.integers(len(values), size=(size, len(values)))].mean(1) for size in sizes])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def wins(ours: Floats, theirs: Floats) -> Floats:
    """(N,) 1 where our score is the higher, ½ where they are equal, else 0. Its mean is the win rate."""
    return (np.sign(ours - theirs) + 1) / 2


def pairwise_accuracy(proxy: Floats, gold: Floats) -> tuple[float, int]:
    """How often a proxy puts two answers to one prompt in the gold order, and on how many pairs of unequal gold score.

    Both (N, M), M answers a prompt. A pair that the proxy ties counts half. Without any pair the accuracy is ½.
    """
    first, second = np.triu_indices(gold.shape[1], k=1)
    order = np.sign(gold[:, first] - gold[:, second])
    agreed = (np.sign(proxy[:, first] - proxy[:, second]) * order + 1) / 2
    untied = order != 0
    return (float(agreed[untied].mean()) if untied.any() else 0.5), int(untied.sum())


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation of two (N,) arrays, equal values sharing their mean rank; 0 where one is constant."""
    ranks_a, ranks_b = mean_ranks(a) - (len(a) + 1) / 2, mean_ranks(b) - (len(b) + 1) / 2
    norm = np.sqrt((ranks_a**2).sum() * (ranks_b**2).sum())
    return float((ranks_a * ranks_b).sum() / norm) if norm else 0.0


def mean_ranks(values: Floats) -> Floats:
    """(N,) ranks from 1; equal values share the mean of the ranks they take up."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]
