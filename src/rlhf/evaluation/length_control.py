"""Win rates as they would be between answers of equal length."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, ndtri

from rlhf.evaluation.statistics import LEVEL, Floats, Interval

EXACT_ENOUGH = 1e-10  # slope of the mean log-likelihood


def length_controlled_win_rate(won: Floats, length_difference: Floats) -> Interval:
    """The win rate at a length difference of 0, with a 95 % interval over prompts.

    won: (N,) 1, ½ or 0; length_difference: (N,) our length less theirs. A logistic regression of the win on
    tanh(difference / its standard deviation), as AlpacaEval 2 does (Dubois et al. 2024), without that paper's term for
    the difficulty of each instruction, which needs many models to be fitted. Ties are halves (fractional response,
    Papke and Wooldridge 1996). The interval is the sandwich's on the log odds: right even where wins are not logistic.

    Where lengths are equal everywhere the regression is the plain win rate, and so it is where they differ everywhere by
    the same, which no regression can tell from skill. Where no regression exists the mean is the plain win rate too: with
    wins alone, or losses alone, the interval is the exact one of Clopper and Pearson 1934; where a length tells every win
    from every loss it is all of [0, 1], for nothing then says who would win at equal length.
    """
    if won.min() == won.max() != 0.5:
        return _one_sided(won)
    feature = np.tanh(length_difference / (length_difference.std() or 1.0))
    if np.ptp(feature) == 0:
        return _at_equal_length(won, np.ones((len(won), 1)))
    if _told_apart(won, feature):
        return Interval(float(won.mean()), 0.0, 1.0)
    return _at_equal_length(won, np.stack([np.ones(len(won)), feature], axis=1))


def _one_sided(won: Floats) -> Interval:
    unlikely = ((1 - LEVEL) / 2) ** (1 / len(won))
    return Interval(1.0, unlikely, 1.0) if won[0] == 1 else Interval(0.0, 0.0, 1 - unlikely)


def _told_apart(won: Floats, feature: Floats) -> bool:
    """Whether some threshold has all (parts of) wins on one side of it and all losses on the other, or both on it."""
    with_win, with_loss = feature[won > 0], feature[won < 1]
    return bool(with_loss.max() <= with_win.min() or with_win.max() <= with_loss.min())


def _at_equal_length(won: Floats, design: Floats) -> Interval:
    """The chance at the first coefficient alone, from columns (N, P) of which the others are 0 at equal length."""
    coefficients = _regress(won, design)
    chance = expit(design @ coefficients)
    bread = np.linalg.inv(design.T * (chance * (1 - chance)) @ design)
    slopes = design * (won - chance)[:, None]
    error = np.sqrt((bread @ (slopes.T @ slopes) @ bread)[0, 0])
    ends = coefficients[0] + ndtri((1 - LEVEL) / 2) * error * np.array([0.0, 1.0, -1.0])
    return Interval(*expit(ends).tolist())


def _regress(won: Floats, design: Floats) -> Floats:
    """(P,) by Newton's method in a trust region."""
    # not statsmodels or scikit-learn: a dependency for a regression of two numbers

    def loss(coefficients: Floats) -> float:
        logits = design @ coefficients
        return float((np.logaddexp(0, logits) - won * logits).mean())

    def slope(coefficients: Floats) -> Floats:
        difference: Floats = design.T @ (expit(design @ coefficients) - won) / len(won)
        return difference

    def curvature(coefficients: Floats) -> Floats:
        chance = expit(design @ coefficients)
        second: Floats = design.T * (chance * (1 - chance)) @ design / len(won)
        return second

    start = np.zeros(design.shape[1])
    found = minimize(loss, start, jac=slope, hess=curvature, method="trust-exact", options={"gtol": EXACT_ENOUGH})
    best: Floats = found.x
    return best
