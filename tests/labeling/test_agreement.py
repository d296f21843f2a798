"""Label noise, its ceiling and its curve, by hand."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from rlhf.labeling.agreement import (
    POINTS,
    agreement,
    gold_gaps,
    mean_gold,
    noise_figures,
    preference_curve,
    ratings_of,
    word_gaps,
)
from rlhf.labeling.gold import label_gold
from rlhf.labeling.pairs import preferences_of
from tests.labeling.records import KnownRater, answered, ranked

RATER = KnownRater({"good answer": 1.0, "poor": -0.5, "also poor": -0.5})


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def test_gaps_are_chosen_less_rejected() -> None:
    ranking = ranked(["good answer", "poor", "also poor"], [1, 0, 2])
    preferences = preferences_of(ranking)
    gaps = dict(
        zip([(p.chosen, p.rejected) for p in preferences], gold_gaps(preferences, ratings_of([ranking], RATER)), strict=True)
    )
    assert gaps == {("poor", "good answer"): -1.5, ("poor", "also poor"): 0.0, ("good answer", "also poor"): 1.5}
    assert list(word_gaps(preferences_of(ranked(["good answer", "poor"], [0, 1])))) == [1.0]


def test_noise_figures_by_hand() -> None:
    found = noise_figures(np.array([1.0, 1.0, -0.5, 0.0]), temperature=0.5)
    assert found["label_noise"] == 1 / 4
    assert found["observed_agreement"] == 2.5 / 4
    assert found["noise_ceiling"] == pytest.approx((2 * sigmoid(2.0) + sigmoid(1.0) + 0.5) / 4)


def test_labels_drawn_at_a_temperature_agree_with_gold_as_often_as_the_ceiling_says() -> None:
    rater = KnownRater({"a": 0.0, "b": 0.4, "c": 1.0})
    rankings = label_gold([answered(["a", "b", "c"], f"question {i} ?") for i in range(4000)], rater, 0.5, 0)
    preferences = [preference for ranking in rankings for preference in preferences_of(ranking)]
    found = noise_figures(gold_gaps(preferences, ratings_of(rankings, rater)), temperature=0.5)
    assert found["observed_agreement"] == pytest.approx(found["noise_ceiling"], abs=0.015)  # four standard errors


def test_the_curve_splits_pairs_evenly_from_small_to_large_gaps() -> None:
    gaps = np.arange(1, 4 * POINTS + 1) * np.array([1, -1] * 2 * POINTS)
    rows = preference_curve(gaps.astype(np.float64), temperature=2.0)
    assert [row["step"] for row in rows] == list(range(1, POINTS + 1))
    assert [row["pairs"] for row in rows] == [4] * POINTS
    assert rows[0]["difference"] == 2.5
    assert rows[0]["preferred"] == 0.5
    assert rows[0]["expected"] == pytest.approx(np.mean([sigmoid(gap / 2) for gap in (1, 2, 3, 4)]))


def test_the_curve_of_few_pairs_is_short_and_without_a_temperature_expects_nothing() -> None:
    assert preference_curve(np.array([3.0]), temperature=None) == [
        {"step": 1, "difference": 3.0, "preferred": 1.0, "pairs": 1}
    ]


def test_agreement_counts_a_tie_half() -> None:
    assert agreement(np.array([2.0, -1.0, 0.0, 3.0])) == 2.5 / 4


def test_mean_gold_is_over_all_responses() -> None:
    ranking = ranked(["good answer", "poor", "poor"], [0, 1, 1])
    assert mean_gold([ranking], ratings_of([ranking], RATER)) == pytest.approx(
        {"gold": 0.0, "help": 0.0, "honest": 0.0, "logic": 0.0, "harm": 0.0}
    )
