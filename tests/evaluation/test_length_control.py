"""A judge that loves length is seen through, and one that does not is believed."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest

from rlhf.evaluation.length_control import length_controlled_win_rate
from rlhf.evaluation.statistics import Floats


def judged_by_length(generator: np.random.Generator, log_odds: float, prompts: int) -> tuple[Floats, Floats]:
    """Wins at these log odds for equal length, by a judge who loves length, of answers that are mostly longer."""
    difference = np.round(generator.normal(20.0, 20.0, size=prompts))
    chance = 1 / (1 + np.exp(-log_odds - 2 * np.tanh(difference / difference.std())))
    return (generator.random(prompts) < chance).astype(float), difference


def test_a_judge_that_loves_length_alone_finds_equals_at_equal_length() -> None:
    won, difference = judged_by_length(np.random.default_rng(0), 0.0, 4000)
    assert won.mean() > 0.68
    controlled = length_controlled_win_rate(won, difference)
    assert controlled.mean == pytest.approx(0.5, abs=0.05)
    assert controlled.low < 0.5 < controlled.high


@pytest.mark.parametrize("log_odds", [0.0, 1.0])
def test_an_interval_covers_the_rate_at_equal_length_95_times_in_100(log_odds: float) -> None:
    generator, repetitions = np.random.default_rng(1), 400
    found = [length_controlled_win_rate(*judged_by_length(generator, log_odds, 300)) for _ in range(repetitions)]
    truth = 1 / (1 + np.exp(-log_odds))
    assert 0.91 < sum(interval.low <= truth <= interval.high for interval in found) / repetitions < 0.985


@pytest.mark.parametrize("differences", [(0.0, 0.0), (12.0, 12.0), (1000.0, 1001.0)])  # the last: tanh is 1 of both
def test_lengths_that_do_not_vary_leave_the_win_rate_and_its_error(differences: tuple[float, float]) -> None:
    """The log odds of n throws have the variance 1 / (n p (1 - p))."""
    won = np.array([1.0, 1.0, 0.0, 1.0] * 10)
    found = length_controlled_win_rate(won, np.array(differences * 20))
    half = 1.959964 * sqrt(1 / (40 * 0.75 * 0.25))
    assert found.mean == pytest.approx(0.75)
    assert [log(end / (1 - end)) for end in (found.low, found.high)] == pytest.approx([log(3) - half, log(3) + half])


def test_a_tie_is_half_a_win_and_half_a_loss_but_is_surer_than_a_throw() -> None:
    difference = np.array([-30.0, -10.0, 0.0, 5.0, 20.0, 40.0] * 5)
    won = np.array([0.0, 1.0, 0.5, 0.5, 1.0, 0.5] * 5)
    apart, lengths = np.concatenate([np.ceil(won), np.floor(won)]), np.concatenate([difference, difference])
    tied, split = length_controlled_win_rate(won, difference), length_controlled_win_rate(apart, lengths)
    assert tied.mean == pytest.approx(split.mean, abs=1e-8)
    ties = length_controlled_win_rate(np.full(6, 0.5), difference[:6])
    assert (ties.mean, ties.low, ties.high) == pytest.approx((0.5, 0.5, 0.5))


def test_two_lengths_are_two_win_rates_on_the_log_odds() -> None:
    """Longer by 10 wins 9 of 12, shorter by 10 wins 1 of 4: at equal length, the mean of log odds of 3 and of 1/3."""
    won = np.array([1.0] * 9 + [0.0] * 3 + [1.0] + [0.0] * 3)
    assert length_controlled_win_rate(won, np.array([10.0] * 12 + [-10.0] * 4)).mean == pytest.approx(0.5)
    assert length_controlled_win_rate(1 - won, np.array([10.0] * 12 + [-10.0] * 4)).mean == pytest.approx(0.5)


def test_sides_exchanged_the_rates_add_up_to_1() -> None:
    won, difference = judged_by_length(np.random.default_rng(2), 0.7, 200)
    ours, theirs = length_controlled_win_rate(won, difference), length_controlled_win_rate(1 - won, -difference)
    assert (theirs.mean, theirs.low, theirs.high) == pytest.approx((1 - ours.mean, 1 - ours.high, 1 - ours.low))


def test_wins_alone_have_the_exact_interval_of_as_many_throws() -> None:
    difference = np.array([3.0, -1.0, 0.0, 8.0])
    for lengths in (difference, np.zeros(4)):
        all_won = length_controlled_win_rate(np.ones(4), lengths)
        assert (all_won.mean, all_won.high) == (1.0, 1.0)
        assert all_won.low**4 == pytest.approx(0.025)
        none = length_controlled_win_rate(np.zeros(4), lengths)
        assert (none.mean, none.low, none.high) == pytest.approx((0.0, 0.0, 1 - all_won.low))


@pytest.mark.parametrize(
    "won", [[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0.5, 1], [1, 0.5, 0, 0], [0, 0, 0, 1]], ids=lambda won: str(won)
)
def test_wins_that_length_tells_from_losses_say_nothing_of_equal_length(won: list[float]) -> None:
    found = length_controlled_win_rate(np.array(won, dtype=float), np.array([-20.0, -5.0, 5.0, 20.0]))
    assert (found.mean, found.low, found.high) == (sum(won) / 4, 0.0, 1.0)


def test_one_pair_of_lengths_with_both_outcomes_on_one_side_is_not_enough() -> None:
    """Longer by 5 wins and loses, all longer ones win, all shorter ones lose: the slope has no end."""
    found = length_controlled_win_rate(np.array([0.0, 0.0, 1.0, 1.0]), np.array([-20.0, 5.0, 5.0, 20.0]))
    assert (found.low, found.high) == (0.0, 1.0)
