"""Points beside each other, by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from rlhf.evaluation.points import BEST_OF_N, Marks, Point
from rlhf.evaluation.standings import best_of_n_points, row, standings
from rlhf.evaluation.statistics import Floats, paired_difference
from rlhf.evaluation.written import Samples
from rlhf.records import Message

PROMPTS = 40
GENERATOR = np.random.default_rng(0)
RIVALS = GENERATOR.integers(0, 4, PROMPTS).astype(float)


def marks(judged: Floats, kl: float) -> Marks:
    ones = np.ones(PROMPTS)
    return Marks(judged, judged / 2, ones * kl, ones * 9, ones, rivals=RIVALS, rival_tokens=ones * 7)


def point(method: str, gain: float, kl: float, seeds: int = 1) -> Point:
    return Point(method, runs={seed: marks(GENERATOR.integers(0, 4, PROMPTS) + gain, kl) for seed in range(seeds)})


SFT = point("sft", 0.0, 0.0)
POINTS = [SFT, point("ppo", 1.0, 2.0, seeds=3), point("dpo", 0.5, 3.0), point("ppo", 2.0, 4.0)]
FOUND = standings(POINTS, next(iter(SFT.runs.values())), 200, 0)


def test_the_frontier_leaves_out_what_costs_more_and_brings_less() -> None:
    assert [one.pareto for one in FOUND] == [True, True, False, True]


def test_the_best_is_behind_nobody_and_the_others_at_a_level_for_all_pairs() -> None:
    assert [one.behind is None for one in FOUND] == [False, False, False, True]
    for one, entry in zip(FOUND[:3], POINTS, strict=False):
        expected = paired_difference(entry.over_seeds("judged"), POINTS[3].over_seeds("judged"), 1 - 0.05 / 6)
        assert one.behind == expected
        assert one.ties_the_best == (expected.high >= 0)


def test_a_win_is_counted_against_the_independent_answers_of_sft() -> None:
    for one, entry in zip(FOUND, POINTS, strict=True):
        judged = entry.over_seeds("judged")
        assert one.win_rate.mean == pytest.approx(((judged > RIVALS) + (judged == RIVALS) / 2).mean())


def test_lengths_that_all_differ_by_the_same_control_nothing() -> None:
    assert [one.win_rate_at_equal_length for one in FOUND] == pytest.approx([one.win_rate.mean for one in FOUND])


def test_a_row_has_the_ends_of_every_interval() -> None:
    told = row(FOUND[1])
    assert (told["method"], told["seeds"], told["pareto"]) == ("ppo", 3, 1)
    assert told["kl_low"] <= told["kl"] <= told["kl_high"]
    assert "behind" not in row(FOUND[3])


def test_best_of_n_wins_as_often_as_one_answer_chosen_of_n_does() -> None:
    """Against all pairs of five samples, each time the one of higher reward: never the mean score against a rival."""
    prompts = [(Message("user", str(i)),) for i in range(PROMPTS)]
    rewards, judged = GENERATOR.normal(size=(PROMPTS, 5)), GENERATOR.integers(0, 4, (PROMPTS, 5)).astype(float)
    entries = zip(prompts, rewards.tolist(), judged.tolist(), strict=True)
    pool = [Samples(prompt, given, gold, [9] * 5, [True] * 5) for prompt, given, gold in entries]
    (two, four) = best_of_n_points(pool, RIVALS, seed=0)
    (told,) = two.runs.values()
    chosen = np.array(
        [
            [gold[a if given[a] > given[b] else b] for a, b in combinations(range(5), 2)]
            for given, gold in zip(rewards, judged, strict=True)
        ]
    )
    assert told.judged == pytest.approx(chosen.mean(1))
    assert told.won == pytest.approx(((chosen > RIVALS[:, None]) + (chosen == RIVALS[:, None]) / 2).mean(1))
    (standing,) = standings([two], next(iter(SFT.runs.values())), 200, 0)
    assert standing.win_rate.mean == pytest.approx(np.mean(told.won))
    assert standing.win_rate_at_equal_length is None
    assert (two.method, four.setting["n"]) == (BEST_OF_N, "4")
