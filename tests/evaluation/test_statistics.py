"""Intervals cover what they should, and two judges are compared pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.evaluation import statistics
from rlhf.evaluation.statistics import (
    Floats,
    bootstrap,
    bootstrap_over_seeds,
    mean_ranks,
    paired_difference,
    pairwise_accuracy,
    resampled_means,
    spearman,
    wins,
)

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


def crossed(generator: np.random.Generator, seeds: int, prompts: int) -> Floats:
    """(S, N) with effects of seeds, of prompts and of both, all of them seen in the mean's variance; true mean 0."""
    effects = (
        generator.normal(size=(seeds, 1)) * 0.3,
        generator.normal(size=prompts),
        generator.normal(size=(seeds, prompts)),
    )
    return sum(effects, start=np.zeros((seeds, prompts)))


def parts(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Seeds (S, 1), prompts (N,) and the rest (S, N), each of mean 0."""
    seeds, prompts = values.mean(1, keepdims=True) - values.mean(), values.mean(0) - values.mean()
    return seeds, prompts, values - values.mean() - seeds - prompts


def test_one_seed_is_efrons_bootstrap_to_the_bit() -> None:
    values = np.random.default_rng(2).normal(size=70)
    drawn = np.random.default_rng(9).integers(70, size=(300, 70))
    low, high = np.quantile(values[drawn].mean(1), [(1 - 0.95) / 2, (1 + 0.95) / 2])
    interval = bootstrap_over_seeds(values[None], 300, 9)
    assert interval == bootstrap(values, 300, 9)
    assert (interval.mean, interval.low, interval.high) == (values.mean(), low, high)


def test_drawn_means_vary_as_independent_draws_of_seeds_and_prompts_do() -> None:
    """The pigeonhole's variance has a closed form: each part is averaged over what is drawn of it."""
    values = crossed(np.random.default_rng(3), 4, 30)
    by_seed, by_prompt, rest = parts(values)
    expected = (by_seed**2).mean() / 4 + (by_prompt**2).mean() / 30 + (rest**2).mean() / (4 * 30)
    means = resampled_means(values, 20_000, 0)
    assert means.var() == pytest.approx(expected, rel=0.05)
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)


def test_an_interval_over_seeds_covers_the_mean_of_all_seeds() -> None:
    generator, repetitions = np.random.default_rng(4), 300
    found = [bootstrap_over_seeds(crossed(generator, 12, 60), 300, seed) for seed in range(repetitions)]
    covered = sum(interval.low <= 0.0 <= interval.high for interval in found) / repetitions
    assert 0.9 < covered < 0.99


def test_draws_depend_on_the_shape_alone() -> None:
    values = crossed(np.random.default_rng(5), 3, 40)
    np.testing.assert_allclose(resampled_means(values + 7.0, 50, 1), resampled_means(values, 50, 1) + 7.0)
    by_prompt = np.arange(40.0)
    more_seeds = resampled_means(np.tile(by_prompt, (5, 1)), 50, 1)
    np.testing.assert_allclose(more_seeds, resampled_means(by_prompt[None], 50, 1))  # the same prompts with any S
    assert resampled_means(values, 50, 1).tolist() != resampled_means(values, 50, 2).tolist()


def test_an_interval_over_seeds_in_parts_is_one_with_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    values = crossed(np.random.default_rng(6), 3, 20)
    whole = resampled_means(values, 33, 0)
    monkeypatch.setattr(statistics, "RESAMPLED_AT_ONCE", 64)
    np.testing.assert_array_equal(resampled_means(values, 33, 0), whole)


def test_a_difference_of_one_run_each_is_that_of_its_prompts() -> None:
    generator = np.random.default_rng(7)
    ours, theirs = generator.normal(size=(2, 1, 50))
    interval, of_differences = paired_difference(ours, theirs, 200, 3), bootstrap((ours - theirs)[0], 200, 3)
    assert (interval.mean, interval.low, interval.high) == pytest.approx(
        (of_differences.mean, of_differences.low, of_differences.high)
    )
    shifted = paired_difference(theirs + 3.0, theirs, 200, 3)
    assert (shifted.mean, shifted.low, shifted.high) == pytest.approx((3.0, 3.0, 3.0))


@pytest.mark.parametrize(("level", "errors"), [(0.95, 1.95996), (0.99, 2.57583)])
def test_a_difference_pairs_prompts_and_draws_the_seeds_of_each_apart(level: float, errors: float) -> None:
    generator = np.random.default_rng(8)
    ours, shared = crossed(generator, 12, 40), 2 * generator.normal(size=40)
    theirs = crossed(generator, 9, 40) + shared
    ours = ours + shared - 0.5
    (our_seeds, our_prompts, our_rest), (their_seeds, their_prompts, their_rest) = parts(ours), parts(theirs)
    variance = (our_seeds**2).mean() / 12 + (their_seeds**2).mean() / 9 + ((our_prompts - their_prompts) ** 2).mean() / 40
    variance += (our_rest**2).mean() / (12 * 40) + (their_rest**2).mean() / (9 * 40)
    interval = paired_difference(ours, theirs, 20_000, 0, level)
    assert interval.mean == pytest.approx(ours.mean() - theirs.mean())
    assert interval.high - interval.low == pytest.approx(2 * errors * variance**0.5, rel=0.04)


def test_seeds_of_one_size_are_still_drawn_apart() -> None:
    """Runs that differ by seed alone: drawn together their difference would always be 0."""
    runs = np.tile(np.array([[0.0], [1.0], [2.0], [3.0]]), (1, 10))
    interval = paired_difference(runs, runs, 2000, 0)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * (2 * 1.25 / 4) ** 0.5, rel=0.1)


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
