"""Intervals cover what they should, and two judges are compared pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from rlhf.evaluation import statistics
from rlhf.evaluation.statistics import (
    Floats,
    bootstrap,
    bootstrap_over_seeds,
    over_seeds,
    paired_difference,
    resampled_means,
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


@pytest.mark.parametrize(("seeds", "least"), [(2, 0.86), (3, 0.92), (5, 0.92)])
def test_an_interval_over_few_seeds_covers_the_mean_of_all_seeds(seeds: int, least: float) -> None:
    """Where seeds decide, where prompts do, and between, where two seeds may hide how far seeds differ."""
    generator, repetitions = np.random.default_rng(10 + seeds), 400
    for spread in (2.0, 0.3, 0.0):
        covered = 0
        for _ in range(repetitions):
            effects = (
                generator.normal(size=(seeds, 1)) * spread,
                generator.normal(size=60),
                generator.normal(size=(seeds, 60)),
            )
            interval = over_seeds(sum(effects, start=np.zeros((seeds, 60))), 100, 0)
            covered += interval.low <= 0.0 <= interval.high
        assert covered / repetitions > least


def test_of_one_seed_the_interval_is_that_of_prompts_and_of_no_difference_nothing() -> None:
    values = np.random.default_rng(11).normal(size=(1, 40))
    assert over_seeds(values, 100, 3) == bootstrap(values[0], 100, 3)
    constant = over_seeds(np.full((3, 40), 2.5), 100, 3)
    assert (constant.mean, constant.low, constant.high) == (2.5, 2.5, 2.5)


@pytest.mark.parametrize("level", [0.95, 0.999])
def test_a_difference_of_one_run_each_is_students_over_pairs_of_prompts(level: float) -> None:
    generator = np.random.default_rng(7)
    ours, theirs = generator.normal(size=(2, 1, 50))
    interval = paired_difference(ours, theirs, level)
    expected = stats.ttest_rel(ours[0], theirs[0]).confidence_interval(level)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    shifted = paired_difference(theirs + 3.0, theirs)
    assert (shifted.mean, shifted.low, shifted.high) == pytest.approx((3.0, 3.0, 3.0))


def test_runs_of_one_size_are_not_paired_with_each_other() -> None:
    """Runs that differ by seed alone: paired their difference would always be 0. Two means of four: Welch's test."""
    ours, theirs = (np.tile(np.array([[0.0], [1.0], [2.0], [spread]]), (1, 10)) for spread in (3.0, 9.0))
    interval = paired_difference(ours, theirs)
    expected = stats.ttest_ind(ours[:, 0], theirs[:, 0], equal_var=False).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_what_prompts_have_in_common_is_no_part_of_a_difference() -> None:
    generator = np.random.default_rng(8)
    hard = 50 * generator.normal(size=40)
    ours, theirs = crossed(generator, 3, 40), crossed(generator, 2, 40)
    plain, shared = paired_difference(ours, theirs), paired_difference(ours + hard, theirs + hard)
    assert (shared.low, shared.high) == pytest.approx((plain.low, plain.high))
