"""Label noise, its ceiling and its curve, by hand."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from rlhf.data.sentiment import SentimentRater
from rlhf.labeling.agreement import (
    POINTS,
    agreement,
    beside_gold,
    beside_the_noise,
    concordance,
    gold_gaps,
    gold_ranks,
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


def test_an_accuracy_is_held_against_the_ceiling_where_there_is_one() -> None:
    rankings = [ranked(["good answer", "poor"], [0, 1])]
    assert beside_the_noise(0.75, rankings, RATER, 0.5)["share_of_ceiling"] == pytest.approx(0.25 / (sigmoid(3.0) - 0.5))
    found = beside_the_noise(0.75, [ranked(["poor", "also poor"], [0, 1])], RATER, 0.5)
    assert found == {"label_noise": 0.0, "observed_agreement": 0.5, "noise_ceiling": 0.5}


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


def test_a_rater_without_axes_has_a_mean_gold_score_and_no_mean_of_theirs() -> None:
    gold = SentimentRater(0.0, {"good": (1.0, 2.0)})
    ranking = ranked(["good answer", "poor"], [0, 1])
    assert mean_gold([ranking], ratings_of([ranking], gold)) == {"gold": 1.0}
    about, _ = beside_gold([ranking], preferences_of(ranking), gold, temperature=0.5)
    assert about["label_noise"] == 0


def test_mean_gold_is_over_all_responses() -> None:
    ranking = ranked(["good answer", "poor", "poor"], [0, 1, 1])
    assert mean_gold([ranking], ratings_of([ranking], RATER)) == pytest.approx(
        {"gold": 0.0, "help": 0.0, "honest": 0.0, "logic": 0.0, "harm": 0.0}
    )


three_labels = st.lists(st.integers(0, 3), min_size=4, max_size=4)


def test_concordance_by_hand() -> None:
    """Pairs: a-b alike, a-c ordered by one alone, b-c the other way round; the text that stands twice counts once."""
    ranking = ranked(["a", "b", "c", "a"], [0, 1, 2, 0])
    found = concordance([ranking], [(0, 2, 0, 0)])
    assert (found["pairs"], found["ordered_pairs"], found["agreement"]) == (3, 2, 1 / 2)
    expected = (
        2 * (1 / 2) * (1 / 3)
    )  # each names either direction; ours half and half, theirs a third each, and a third ties
    assert found["kappa"] == pytest.approx((1 / 3 - expected) / (1 - expected))


@given(st.lists(st.tuples(three_labels, three_labels), min_size=1, max_size=6))
def test_kappa_is_scikit_learns_of_all_pairs_in_both_directions(rows: list[tuple[list[int], list[int]]]) -> None:
    rankings = [ranked("abcd", ours) for ours, _ in rows]
    every = [(i, j) for i in range(4) for j in range(4) if i != j]
    ours, theirs = ([np.sign(one[j] - one[i]) for one in side for i, j in every] for side in zip(*rows, strict=True))
    found = concordance(rankings, [others for _, others in rows])
    if set(ours) == set(theirs) == {0}:
        assert "kappa" not in found
    else:
        assert found["kappa"] == pytest.approx(cohen_kappa_score(ours, theirs))


@given(st.lists(three_labels, min_size=1, max_size=6), st.permutations(range(4)))
def test_which_text_stands_first_does_not_matter(rows: list[list[int]], order: list[int]) -> None:
    theirs = [row[::-1] for row in rows]
    straight = concordance([ranked("abcd", row) for row in rows], theirs)
    turned = [ranked([f"{text}" for text in np.array(list("abcd"))[order]], np.array(row)[order].tolist()) for row in rows]
    assert concordance(turned, [np.array(row)[order].tolist() for row in theirs]) == pytest.approx(straight)


def test_who_agrees_in_all_has_1_and_who_contradicts_in_all_minus_1() -> None:
    ranking = ranked("abc", [2, 0, 1])
    assert concordance([ranking], [ranking.ranks]) == {"pairs": 3, "ordered_pairs": 3, "agreement": 1.0, "kappa": 1.0}
    assert concordance([ranking], [(0, 2, 1)]) == {"pairs": 3, "ordered_pairs": 3, "agreement": 0.0, "kappa": -1.0}


def test_where_all_tie_there_is_nothing_to_agree_on() -> None:
    assert concordance([ranked("ab", [0, 0])], [(0, 0)]) == {"pairs": 1, "ordered_pairs": 0}
    assert concordance([], []) == {"pairs": 0, "ordered_pairs": 0}


def test_the_gold_raters_own_order_has_ties_where_scores_are_equal() -> None:
    ranking = ranked(["poor", "good answer", "also poor"], [0, 1, 2])
    assert gold_ranks([ranking], ratings_of([ranking], RATER)) == [(1, 0, 1)]


def test_beside_gold_a_labeler_is_held_against_it_and_gold_itself_against_its_noise() -> None:
    ranking = ranked(["good answer", "poor"], [1, 0])
    figures, curve = beside_gold([ranking], preferences_of(ranking), RATER, temperature=None)
    assert figures["gold"] == {"pairs": 1, "ordered_pairs": 1, "agreement": 0.0, "kappa": -1.0}
    assert "expected" not in curve[0]
    figures, curve = beside_gold([ranking], preferences_of(ranking), RATER, temperature=0.5)
    assert figures["label_noise"] == 1.0
    assert "gold" not in figures
    assert "expected" in curve[0]
