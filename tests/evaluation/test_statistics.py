"""Intervals cover what they should, and two judges are compared pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.evaluation import statistics
from rlhf.evaluation.statistics import bootstrap, mean_ranks, pairwise_accuracy, spearman, wins

few_levels = st.lists(st.integers(0, 5), min_size=2, max_size=12)


def test_a_95_percent_interval_covers_the_true_mean_95_times_in_100() -> None:
    generator, repetitions = np.random.default_rng(0), 400
    found = [bootstrap(generator.normal(1.0, 2.0, size=100), 400, seed) for seed in range(repetitions)]
    covered = sum(interval.low <= 1.0 <= interval.high for interval in found) / repetitions
    assert 0.91 < covered < 0.98  # four standard errors about .945, what a percentile interval of 100 values reaches


def test_the_interval_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(size=1000)
    interval = bootstrap(values, 4000, 0)
    assert interval.mean == values.mean()
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 1000**0.5, rel=0.06)


def test_a_bootstrap_is_a_function_of_its_seed_and_shares_its_draws() -> None:
    values = np.arange(50.0)
    assert bootstrap(values, 200, 3) == bootstrap(values, 200, 3) != bootstrap(values, 200, 4)
    plain, shifted = bootstrap(values, 200, 3), bootstrap(values + 7.0, 200, 3)
    assert shifted.low == pytest.approx(plain.low + 7.0)


def test_a_bootstrap_in_parts_is_one_with_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLED_AT_ONCE", 64)
    interval = bootstrap(np.full(20, 0.25), 33, 0)
    assert (interval.mean, interval.low, interval.high) == (0.25, 0.25, 0.25)


def test_wins_by_hand() -> None:
    assert list(wins(np.array([1.0, 2.0, 3.0, 0.0]), np.array([1.0, 1.0, 4.0, -1.0]))) == [0.5, 1.0, 0.0, 1.0]


def test_pairwise_accuracy_by_hand() -> None:
    gold = np.array([[3.0, 1.0, 1.0], [0.0, 2.0, 1.0]])
    proxy = np.array([[0.5, 0.1, 0.2], [0.0, 0.0, 1.0]])
    # first prompt: 3 over 1 right, 3 over 1 right, 1 and 1 no pair; second: a tie, 0 under 1 right, 2 over 1 wrong
    assert pairwise_accuracy(proxy, gold) == ((1 + 1 + 0.5 + 1 + 0) / 5, 5)


def test_pairwise_accuracy_without_a_pair_is_a_half() -> None:
    assert pairwise_accuracy(np.array([[1.0, 2.0]]), np.array([[3.0, 3.0]])) == (0.5, 0)


def test_mean_ranks_by_hand() -> None:
    assert list(mean_ranks(np.array([10.0, 7.0, 10.0, 3.0]))) == [3.5, 2.0, 3.5, 1.0]


@given(few_levels, st.randoms())
def test_spearman_is_the_correlation_of_the_ranks(a: list[int], random: object) -> None:
    b = list(a)
    random.shuffle(b)  # type: ignore[attr-defined]
    ranks = [[sum(y < x for y in row) + (sum(y == x for y in row) + 1) / 2 for x in row] for row in (a, b)]
    constant = len(set(a)) == 1
    expected = 0.0 if constant else np.corrcoef(ranks)[0, 1]
    assert spearman(np.array(a, dtype=float), np.array(b, dtype=float)) == pytest.approx(expected, abs=1e-12)
