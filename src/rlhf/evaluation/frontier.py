"""What a policy buys with its divergence: the best of n answers for every n, and the points that no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np

from rlhf.evaluation.statistics import Floats, Indices


def best_of_n(rewards: Floats, values: Floats, n: int) -> Floats:
    """(N,) expected value of the answer with the highest reward of n, drawn from M without replacement.

    rewards, values: (N, M), of M independent answers to each prompt. Unbiased, with every n from the same M answers
    (Nakano et al. 2021, appendix I). Answers of equal reward are chosen equally often.
    """
    m = rewards.shape[1]
    if not 1 <= n <= m:
        raise ValueError(f"the best of {n} of {m} answers: n is from 1 to {m}")
    order = np.argsort(rewards, axis=1)
    first, end = _tied(np.take_along_axis(rewards, order, axis=1))
    below = np.array([comb(k, n) / comb(m, n) for k in range(m + 1)])  # the n all come from the k lowest
    share = (below[end] - below[first]) / (end - first)
    return (share * np.take_along_axis(values, order, axis=1)).sum(1)


def _tied(ascending: Floats) -> tuple[Indices, Indices]:
    """(N, M) twice: where the run of equal values that an entry belongs to starts, and where it has ended."""
    m = ascending.shape[1]
    step, place = ascending[:, 1:] != ascending[:, :-1], np.arange(1, m)
    first, end = np.zeros(ascending.shape, dtype=np.int64), np.full(ascending.shape, m)
    first[:, 1:] = np.maximum.accumulate(np.where(step, place, 0), axis=1)
    end[:, :-1] = np.minimum.accumulate(np.where(step, place, m)[:, ::-1], axis=1)[:, ::-1]
    return first, end


def pareto(kl: Sequence[float], score: Sequence[float]) -> list[int]:
    """Which points no other beats with a KL no higher and a score no lower, one of them strictly; from the lowest KL up.

    Points equal in both do not beat each other.
    """
    points = list(zip(kl, score, strict=True))
    kept = [i for i, (k, s) in enumerate(points) if not any(a <= k and b >= s and (a, b) != (k, s) for a, b in points)]
    return sorted(kept, key=lambda i: kl[i])
