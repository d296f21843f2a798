"""Strengths of models from answers to the same prompts, and how sure they are."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest

from rlhf.evaluation.statistics import Floats
from rlhf.evaluation.tournament import strength_figures


def scores(*values: float) -> Floats:
    return np.array(values)


def test_strengths_are_the_log_odds_of_winning() -> None:
    """Two items, 3 wins to 1 (a tie is half a win to both): odds 3, so log λ differs by ln 3, shared around 0."""
    found = strength_figures({"a": scores(1, 1, 0, 1), "b": scores(0, 0, 1, 0)})
    assert found["a"]["strength"] == pytest.approx(log(3) / 2)
    assert found["b"]["strength"] == pytest.approx(-log(3) / 2)
    tied = strength_figures({"a": scores(1, 1, 5, 5), "b": scores(0, 0, 5, 5)})
    assert tied["a"]["strength"] == pytest.approx(log(3) / 2)


def test_two_models_are_as_sure_as_a_coin() -> None:
    """The variance of the log odds of n throws is 1 / (n p (1 - p)); a strength is half of them."""
    found = strength_figures({"a": scores(1, 1, 0, 1), "b": scores(0, 0, 1, 0)})
    assert found["a"]["standard_error"] == pytest.approx(sqrt(1 / (4 * 0.75 * 0.25)) / 2)


def test_errors_are_those_of_other_prompts() -> None:
    """Against the same prompts drawn with replacement, where one answer decides several results and ties are common."""
    generator = np.random.default_rng(0)
    hard = generator.normal(size=300)
    judged = {name: np.round(gain + hard * slope + generator.normal(size=300)) for name, gain, slope in MODELS}
    found = strength_figures(judged)
    again = []
    for _ in range(300):
        drawn = generator.integers(300, size=300)
        refitted = strength_figures({name: values[drawn] for name, values in judged.items()})
        again.append([refitted[name]["strength"] for name in judged])
    for name, spread in zip(judged, np.std(again, axis=0), strict=True):
        assert found[name]["standard_error"] == pytest.approx(spread, rel=0.15)


MODELS = [("base", -1.0, 0.0), ("sft", 0.0, 1.0), ("ppo", 0.7, 1.5), ("dpo", 0.6, 0.2)]


def test_who_never_loses_has_no_finite_strength_and_is_named() -> None:
    found = strength_figures({"base": scores(0, 0, 0), "sft": scores(1, 2, 1), "ppo": scores(2, 1, 2)})
    assert set(found) == {"open_ended"}
    assert found["open_ended"] == (
        "no finite strengths: sft, ppo were never beaten by the others, base never beat the others"
    )
