"""Means with their uncertainty, and how far two judges agree: numpy only.

N counts prompts, S seeds of training. An interval over (N,) says how the figure would move with other prompts drawn from the
same source, nothing more; one over (S, N) also how it would move with other seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
LEVEL = 0.95  # of every interval
RESAMPLED_AT_ONCE = 2**22  # numbers: bounds the memory of a bootstrap


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, or an estimate made of means, and the ends of its interval (95 % unless said), in the unit measured."""

    mean: float
    low: float
    high: float

    @property
    def arms(self) -> tuple[float, float]:
        """How far the interval reaches below and above the mean, neither below 0: of a constant, sums round apart."""
        return max(self.mean - self.low, 0.0), max(self.high - self.mean, 0.0)


def bootstrap(values: Floats, samples: int, seed: int) -> Interval:
    """The mean of (N,) values, with its percentile bootstrap interval over prompts (Efron 1979).

    The same N, samples and seed draw the same prompts, whatever the values: intervals of several models are paired.
    """
    return bootstrap_over_seeds(values[None], samples, seed)


def bootstrap_over_seeds(values: Floats, samples: int, seed: int) -> Interval:
    """The mean of (S, N) values, with its percentile interval over seeds and prompts: the pigeonhole bootstrap (Owen 2007).

    Seeds and prompts are drawn independently of each other, and all seeds meet the same prompts. The same N, S, samples
    and seed draw the same of both, whatever the values. Of a few seeds it tells too little: their part of the variance
    comes out (S - 1) / S of what it is, half for two, nothing for one.
    """
    return percentiles(values.mean(), resampled_means(values, samples, seed))


def over_seeds(values: Floats, samples: int, seed: int) -> Interval:
    """The mean of (S, N) values, with its interval over seeds and prompts; of one seed, over prompts alone: `bootstrap`.

    Few seeds are no matter for a bootstrap: of three, its intervals cover the mean in 8 cases of 10. This one is Student's
    with the variances of seeds and prompts added, and degrees of freedom by Satterthwaite (1946): 95 % from three seeds on,
    with two 89 % where seeds and prompts weigh about the same.
    """
    if len(values) == 1:
        return bootstrap(values[0], samples, seed)
    return _student(values.mean(), [values.mean(1), values.mean(0)], LEVEL)


def paired_difference(ours: Floats, theirs: Floats, level: float = LEVEL) -> Interval:
    """Mean of ours (S, N) less that of theirs (T, N) on the same prompts, with its interval: prompts in pairs, seeds apart.

    For k intervals that hold all at once with 95 %, ask for a level of 1 - .05 / k (Bonferroni).
    """
    by_prompt = ours.mean(0) - theirs.mean(0)
    groups = [by_prompt, *(runs.mean(1) for runs in (ours, theirs) if len(runs) > 1)]
    return _student(by_prompt.mean(), groups, level)


def _student(mean: float, groups: Sequence[Floats], level: float) -> Interval:
    """An interval from the sum of the variances of several means, each of its own group of draws."""
    variances = np.array([group.var(ddof=1) / len(group) for group in groups])
    if not variances.any():
        return Interval(float(mean), float(mean), float(mean))
    freedom = variances.sum() ** 2 / sum(v**2 / (len(group) - 1) for v, group in zip(variances, groups, strict=True))
    reach = float(stdtrit(freedom, (1 + level) / 2) * np.sqrt(variances.sum()))
    return Interval(float(mean), float(mean - reach), float(mean + reach))


def resampled_means(values: Floats, samples: int, seed: int) -> Floats:
    """(samples,) means of (S, N) values in the draws of `bootstrap_over_seeds`, which depend on the shape alone."""
    drawn = draws(values.shape[1], (len(values),), samples, seed)
    return np.concatenate([_drawn_means(values, prompts, seeds) for prompts, (seeds,) in drawn])


def draws(prompts: int, seeds: Sequence[int], samples: int, seed: int) -> Iterator[tuple[Indices, list[Indices]]]:
    """What a bootstrap draws, in parts: indices of prompts (B, N) and, for each group of seeds, of its seeds (B, S)."""
    generator = np.random.default_rng(seed)
    of_seeds = generator.spawn(len(seeds))  # streams of their own: the prompts drawn are the same for any number of seeds
    at_once = max(1, RESAMPLED_AT_ONCE // prompts)
    for start in range(0, samples, at_once):
        size = min(at_once, samples - start)
        chosen = [stream.integers(count, size=(size, count)) for stream, count in zip(of_seeds, seeds, strict=True)]
        yield generator.integers(prompts, size=(size, prompts)), chosen


def _drawn_means(values: Floats, prompts: Indices, seeds: Indices) -> Floats:
    """(B,) means of (S, N) values over drawn prompts and seeds, one seed at a time: memory does not grow with S."""
    by_seed = np.stack([run[prompts].mean(1) for run in values])  # (S, B)
    return by_seed.T[np.arange(len(seeds))[:, None], seeds].mean(1)


def percentiles(mean: float, resampled: Floats) -> Interval:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(mean), float(low), float(high))


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
