"""Calibration, accuracy by length and by gold gap, and agreement with gold: by hand, and against what they must obey."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.labeling.held_out import (
    beside_the_gold,
    by_gap,
    by_length,
    expected_calibration_error,
    gold_agreement,
    held_out_figures,
    label_gaps,
    reliability,
)
from tests.labeling.records import KnownRater, ranked

GAPS = st.lists(st.floats(-30, 30), min_size=1, max_size=40).map(np.array)


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def odds(*probabilities: float) -> np.ndarray:
    """The score gaps at which the chosen response wins with these probabilities."""
    return np.array([log(p / (1 - p)) for p in probabilities])


def test_reliability_by_hand() -> None:
    # the response that scores higher is the rejected one where the chosen one wins with less than a half
    rows = reliability(odds(0.61, 0.64, 0.38, 0.96, 0.98, 0.5))
    assert [(row["step"], row["pairs"]) for row in rows] == [(1, 1), (3, 3), (10, 2)]
    assert [row["right"] for row in rows] == [0.5, 2 / 3, 1.0]
    assert [row["predicted"] for row in rows] == pytest.approx([0.5, (0.61 + 0.64 + 0.62) / 3, 0.97])
    expected = (1 * 0 + 3 * abs(2 / 3 - 1.87 / 3) + 2 * 0.03) / 6
    assert expected_calibration_error(rows) == pytest.approx(expected)


def test_a_certain_pair_is_in_the_last_part() -> None:
    assert reliability(np.array([800.0, -800.0])) == [{"step": 10, "predicted": 1.0, "right": 0.5, "pairs": 2}]


@given(GAPS)
def test_every_pair_is_in_one_part_and_the_error_is_that_of_the_twin(gaps: np.ndarray) -> None:
    parts: dict[int, list[float]] = {}
    for gap in gaps:
        parts.setdefault(min(int((sigmoid(abs(gap)) - 0.5) / 0.05 + 1e-9), 9), []).append(gap)
    rights = {part: [0.5 if gap == 0 else float(gap > 0) for gap in some] for part, some in parts.items()}
    twin = sum(abs(sum(rights[part]) - sum(sigmoid(abs(gap)) for gap in some)) for part, some in parts.items()) / len(gaps)
    rows = reliability(gaps)
    assert sum(row["pairs"] for row in rows) == len(gaps)
    assert all(0.5 + 0.05 * (row["step"] - 1) - 1e-9 <= row["predicted"] <= 0.5 + 0.05 * row["step"] + 1e-9 for row in rows)
    assert expected_calibration_error(rows) == pytest.approx(twin, abs=1e-9)


def test_labels_drawn_by_the_scores_are_calibrated_and_by_half_of_them_are_not() -> None:
    draws = np.random.default_rng(0)
    gaps = draws.uniform(0, 3, 40_000)
    won = draws.uniform(size=len(gaps)) < 1 / (1 + np.exp(-gaps))
    labelled = np.where(won, gaps, -gaps)
    assert expected_calibration_error(reliability(labelled)) < 0.02
    overconfident = expected_calibration_error(reliability(2 * labelled))
    twice = 1 / (1 + np.exp(-2 * gaps)) - 1 / (1 + np.exp(-gaps))
    assert overconfident == pytest.approx(twice.mean(), abs=0.02)


def test_by_length_by_hand() -> None:
    found = by_length(np.array([1.0, -1.0, 0.0, 2.0, 3.0]), np.array([2.0, 1.0, 5.0, 0.0, 0.0]))
    assert found == {
        "chosen_longer": {"accuracy": 1.5 / 3, "pairs": 3},
        "same_length": {"accuracy": 1.0, "pairs": 2},
        "chosen_shorter": {"pairs": 0},
    }


def test_by_gap_by_hand() -> None:
    gold = np.array([4.0, -0.5, 1.0, -2.0, 0.0, 3.0, 1.5, 2.5])
    found = by_gap(np.array([1.0, -1.0, 1.0, -1.0, 0.0, 1.0, -1.0, 1.0]), gold, "gold_gap")
    assert found == {
        "quarter_1": {"gold_gap": 0.25, "accuracy": 0.25, "pairs": 2},
        "quarter_2": {"gold_gap": 1.25, "accuracy": 0.5, "pairs": 2},
        "quarter_3": {"gold_gap": 2.25, "accuracy": 0.5, "pairs": 2},
        "quarter_4": {"gold_gap": 3.5, "accuracy": 1.0, "pairs": 2},
    }
    one = by_gap(np.array([1.0]), np.array([-2.0]), "tokens")
    assert one == {"quarter_1": {"tokens": 2.0, "accuracy": 1.0, "pairs": 1}}


@given(GAPS, st.randoms(use_true_random=False))
def test_the_parts_add_up_to_the_whole(gaps: np.ndarray, random: object) -> None:
    others = np.array([random.choice([-2.0, -1.0, 0.0, 1.0]) for _ in gaps])  # type: ignore[attr-defined]
    right = float(np.sum((np.sign(gaps) + 1) / 2))
    for parts in (by_length(gaps, others), by_gap(gaps, others, "gap")):
        assert sum(part["pairs"] for part in parts.values()) == len(gaps)
        assert sum(part["pairs"] * part.get("accuracy", 0.0) for part in parts.values()) == pytest.approx(right)


def test_agreement_with_gold_by_hand() -> None:
    # gold 1 > 0 right; of gold 2, 0, 0 with scores 1, 1, 3: 2 > 0 half, 2 > 0 wrong, and the tie is left out
    assert gold_agreement([[4.0, 3.0], [1.0, 1.0, 3.0]], [[1.0, 0.0], [2.0, 0.0, 0.0]]) == {
        "gold_pairs": 3,
        "gold_accuracy": 0.5,
    }
    assert gold_agreement([[1.0, 2.0]], [[0.3, 0.1 + 0.2]]) == {"gold_pairs": 0}


def test_gold_scores_agree_with_gold_whatever_the_labels_say() -> None:
    rater = KnownRater({"a": 0.0, "b": 0.5, "c": 2.0})
    for ranks in ([0, 1, 2], [2, 1, 0], [0, 0, 1]):
        found = beside_the_gold([[0.0, 1.0, 2.0]], [ranked("abc", ranks)], rater)  # type: ignore[arg-type]
        assert (found["gold_pairs"], found["gold_accuracy"]) == (3, 1.0)
    assert found["by_gold_gap"] == {
        "quarter_1": {"gold_gap": 1.5, "accuracy": 0.0, "pairs": 1},
        "quarter_2": {"gold_gap": 2.0, "accuracy": 0.0, "pairs": 1},
    }


def test_gaps_are_of_ordered_pairs_and_a_shift_of_all_scores_changes_nothing() -> None:
    rankings = [ranked("abc", [1, 0, 1]), ranked("de", [0, 1])]
    scores, lengths = [[1.0, 3.0, 2.5], [0.0, 4.0]], [[1.0, 2.0, 2.0], [3.0, 1.0]]
    assert label_gaps(scores, rankings).tolist() == [2.0, 0.5, -4.0]
    figures = held_out_figures(scores, lengths, rankings)
    assert figures == held_out_figures([[x + 8 for x in row] for row in scores], lengths, rankings)
    assert {name: part["pairs"] for name, part in figures["calibration"]["predicted_percent"].items()} == {
        "60_to_65": 1,
        "85_to_90": 1,
        "95_to_100": 1,
    }
    assert figures["calibration"]["expected_error"] == pytest.approx(
        (1 - sigmoid(0.5) + 1 - sigmoid(2.0) + sigmoid(4.0)) / 3
    )
    assert figures["by_length"] == {
        "chosen_longer": {"accuracy": 0.5, "pairs": 2},
        "same_length": {"accuracy": 1.0, "pairs": 1},
        "chosen_shorter": {"pairs": 0},
    }
    assert figures["by_length_gap"] == {
        "quarter_1": {"tokens": 0.0, "accuracy": 1.0, "pairs": 1},
        "quarter_2": {"tokens": 1.0, "accuracy": 1.0, "pairs": 1},
        "quarter_3": {"tokens": 2.0, "accuracy": 0.0, "pairs": 1},
    }
    assert "by_margin" not in figures


def test_accuracy_by_margin_where_the_data_have_margins() -> None:
    rankings = [
        replace(ranked("ab", ranks), margin=margin) for ranks, margin in (([0, 1], 2.0), ([1, 0], 0.0), ([0, 1], 0.5))
    ]
    figures = held_out_figures([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0]] * 3, rankings)
    assert figures["by_margin"] == {
        "quarter_1": {"margin": 0.0, "accuracy": 0.0, "pairs": 1},
        "quarter_2": {"margin": 0.5, "accuracy": 0.0, "pairs": 1},
        "quarter_3": {"margin": 2.0, "accuracy": 1.0, "pairs": 1},
    }
