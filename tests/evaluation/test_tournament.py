"""Strengths of models from answers to the same prompts, and how sure they are."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import log, sqrt

import numpy as np
import pytest

from rlhf.evaluation.statistics import Floats, resampled_means
from rlhf.evaluation.tournament import Ends, Tournament, tournament

Z = 1.959964  # standard errors to either side of a 95 % interval


def scores(*values: float) -> Floats:
    return np.array(values)


def single(**judged: Floats) -> Tournament:
    """A tournament of one run each."""
    return tournament({name: values[None] for name, values in judged.items()}, 10, 0)


def test_strengths_are_the_log_odds_of_winning() -> None:
    """Two items, 3 wins to 1 (a tie is half a win to both): odds 3, so log λ differs by ln 3, shared around 0."""
    found = single(a=scores(1, 1, 0, 1), b=scores(0, 0, 1, 0)).ratings
    assert found["a"].strength.mean == pytest.approx(log(3) / 2)
    assert found["b"].strength.mean == pytest.approx(-log(3) / 2)
    tied = single(a=scores(1, 1, 5, 5), b=scores(0, 0, 5, 5)).ratings
    assert tied["a"].strength.mean == pytest.approx(log(3) / 2)


def test_two_models_are_as_sure_as_a_coin() -> None:
    """The variance of the log odds of n throws is 1 / (n p (1 - p)); a strength is half of them."""
    found = single(a=scores(1, 1, 0, 1), b=scores(0, 0, 1, 0)).ratings["a"]
    error = sqrt(1 / (4 * 0.75 * 0.25)) / 2
    assert found.strength.low == pytest.approx(log(3) / 2 - Z * error)
    assert found.strength.high == pytest.approx(log(3) / 2 + Z * error)
    assert found.open is None


def test_errors_are_those_of_other_prompts() -> None:
    """Against the same prompts drawn with replacement, where one answer decides several results and ties are common."""
    generator = np.random.default_rng(0)
    hard = generator.normal(size=300)
    judged = {name: np.round(gain + hard * slope + generator.normal(size=300)) for name, gain, slope in MODELS}
    found = single(**judged).ratings
    again = []
    for _ in range(300):
        drawn = generator.integers(300, size=300)
        refitted = single(**{name: values[drawn] for name, values in judged.items()}).ratings
        again.append([refitted[name].strength.mean for name in judged])
    for name, spread in zip(judged, np.std(again, axis=0), strict=True):
        strength = found[name].strength
        assert (strength.high - strength.low) / 2 / Z == pytest.approx(spread, rel=0.15)


MODELS = [("base", -1.0, 0.0), ("sft", 0.0, 1.0), ("ppo", 0.7, 1.5), ("dpo", 0.6, 0.2)]


def several(seed: int, runs: int) -> dict[str, Floats]:
    """(S, N) scores of MODELS whose runs differ and whose prompts are hard for all."""
    generator = np.random.default_rng(seed)
    hard = generator.normal(size=300)
    return {
        name: np.round(gain + generator.normal(size=(runs, 1)) / 2 + hard * slope + generator.normal(size=(runs, 300)))
        for name, gain, slope in MODELS
    }


def test_ratings_are_elo_points_about_1000() -> None:
    """Odds of 3 are 400 log10 3 points."""
    found = tournament({"a": scores(1, 1, 0, 1)[None], "b": scores(0, 0, 1, 0)[None]}, 10, 0).ratings
    assert found["a"].elo.mean == pytest.approx(1000 + 200 * np.log10(3))
    assert found["b"].elo.mean == pytest.approx(1000 - 200 * np.log10(3))
    assert found["a"].elo.high == pytest.approx(1000 + 400 / log(10) * found["a"].strength.high)


def test_all_pairs_of_runs_meet_and_ties_are_half() -> None:
    a, b = np.array([[1.0, 2.0], [0.0, 5.0], [1.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 3.0]])
    found = tournament({"a": a, "b": b}, 20, 0)
    won = (0.5 + 1 + 1 + 0) + (0 + 0.5 + 1 + 1) + (0.5 + 1 + 0.5 + 0)  # each run of a: two prompts against two runs
    assert found.win_rates == {
        "a": {"a": 0.5, "b": pytest.approx(won / 12)},
        "b": {"a": pytest.approx(1 - won / 12), "b": 0.5},
    }
    assert found.ratings["a"].strength.mean == pytest.approx(log(won / (12 - won)) / 2)


def test_intervals_of_several_runs_are_those_of_draws_of_runs_and_prompts() -> None:
    """One side that always scores ½ leaves the log odds of a mean of (S, N) ones and noughts."""
    values = (np.random.default_rng(3).random((4, 60)) < np.array([[0.5], [0.6], [0.7], [0.8]])).astype(float)
    found = tournament({"a": values, "b": np.full((1, 60), 0.5)}, 400, 5).ratings
    means = resampled_means(values, 400, 5)
    low = np.quantile(np.log(means / (1 - means)) / 2, 0.025, method="lower")
    high = np.quantile(np.log(means / (1 - means)) / 2, 0.975, method="higher")
    assert (found["a"].strength.low, found["a"].strength.high) == pytest.approx((low, high))
    assert (found["b"].strength.low, found["b"].strength.high) == pytest.approx((-high, -low))


def test_who_never_wins_is_bounded_where_that_would_be_too_unlikely() -> None:
    judged = several(1, 1)
    without = tournament(judged, 10, 0)
    found = tournament({"mute": np.full((1, 300), -99.0)} | judged | {"god": np.full((1, 300), 99.0)}, 10, 0)
    mute, god = found.ratings["mute"], found.ratings["god"]
    rest = [found.ratings[name].strength.mean for name in judged]
    assert (mute.strength.mean, mute.strength.low, mute.open) == (None, None, "below")
    assert (1 - 1 / (1 + np.exp(min(rest) - mute.strength.high))) ** 300 == pytest.approx(0.05)
    assert (god.strength.mean, god.strength.high, god.open) == (None, None, "above")
    assert (1 - 1 / (1 + np.exp(god.strength.low - max(rest)))) ** 300 == pytest.approx(0.05)
    assert mute.elo == Ends(None, None, pytest.approx(1000 + 400 / log(10) * mute.strength.high))
    assert {name: found.ratings[name] for name in judged} == without.ratings
    assert found.win_rates["mute"]["god"] == 0.0
    json.dumps(asdict(found), allow_nan=False)


def test_a_ladder_in_which_everyone_always_beats_the_next_keeps_one() -> None:
    found = tournament(
        {name: np.full((2, 5), score) for name, score in (("d", 0.0), ("a", 3.0), ("c", 1.0), ("b", 2.0))}, 20, 0
    )
    assert {name: standing.open for name, standing in found.ratings.items()} == {
        "a": "above",
        "b": None,
        "c": "below",
        "d": "below",
    }
    assert found.ratings["b"].strength == Ends(0.0, 0.0, 0.0)


def test_groups_that_never_lose_to_one_another_are_named_without_those_left_out() -> None:
    judged = {"mute": scores(-9, -9), "base": scores(0, 1), "sft": scores(1, 0), "ppo": scores(3, 2), "dpo": scores(2, 3)}
    found = tournament({name: values[None] for name, values in judged.items()}, 10, 0)
    assert found.ratings == {}
    assert (
        found.open_ended == "no finite strengths: ppo, dpo were never beaten by the others, base, sft never beat the others"
    )
    assert found.win_rates["ppo"]["sft"] == 1.0


def once_in_a_while() -> Tournament:
    judged = several(2, 2)
    rare = np.full((1, 300), -99.0)
    rare[0, 7] = 99.0
    return tournament(judged | {"rare": rare}, 200, 0)


def test_a_single_win_that_many_draws_miss_leaves_no_lower_end() -> None:
    found = once_in_a_while().ratings
    assert found["rare"].strength.mean is not None
    assert found["rare"].strength.high is not None
    assert (found["rare"].strength.low, found["rare"].open) == (None, "below")


def test_who_has_no_strength_in_a_draw_moves_no_other() -> None:
    """The others' mean, and so the width of their intervals, are as among themselves."""
    with_rare, among_themselves = once_in_a_while().ratings, tournament(several(2, 2), 200, 0).ratings
    for name, standing in among_themselves.items():
        low, high = with_rare[name].strength.low, with_rare[name].strength.high
        assert high - low == pytest.approx(standing.strength.high - standing.strength.low, rel=0.5)
        assert low < with_rare[name].strength.mean < high
