"""How far labels agree with the rater behind them, and how far anybody could: numpy only.

A gap is (N,), one number a preference: what is measured of the chosen response minus the same of the rejected one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlhf.data.words import words
from rlhf.data.world import GOLD_DECIMALS, Rating, World
from rlhf.labeling.pairs import preferences_of
from rlhf.records import Preference, Ranking

Floats = NDArray[np.float64]
Ratings = dict[tuple[str, str], Rating]  # by the last turn of the prompt, and the response
POINTS = 10  # of a preference curve
AXES = ("gold", "help", "honest", "logic", "harm")


def ratings_of(rankings: Sequence[Ranking], world: World) -> Ratings:
    """The gold rater's word on every response, by prompt and text: each is rated once."""
    asked = {(ranking.prompt[-1].content, r.text): None for ranking in rankings for r in ranking.responses}
    return {(question, text): world.rate(question, text) for question, text in asked}


def gold_gaps(preferences: Sequence[Preference], ratings: Ratings) -> Floats:
    """(N,) gold units."""
    chosen = [ratings[p.prompt[-1].content, p.chosen].gold for p in preferences]
    rejected = [ratings[p.prompt[-1].content, p.rejected].gold for p in preferences]
    return (np.array(chosen, dtype=np.float64) - np.array(rejected, dtype=np.float64)).round(GOLD_DECIMALS)


def word_gaps(preferences: Sequence[Preference]) -> Floats:
    """(N,) words."""
    return np.array([len(words(p.chosen)) - len(words(p.rejected)) for p in preferences], dtype=np.float64)


def agreement(gaps: Floats) -> float:
    """The share of preferences whose chosen response has more of what the gap measures; none of it counts half."""
    return float(np.mean((np.sign(gaps) + 1) / 2))


def likely_agreement(gaps: Floats, temperature: float) -> Floats:
    """(N,) max(σ(d/τ), 1 − σ(d/τ)): how often a label drawn by SPEC eq. 1 agrees with the better gold score."""
    return 1 / (1 + np.exp(-np.abs(gaps) / temperature))


def noise_figures(gaps: Floats, temperature: float) -> dict[str, float]:
    """Where gaps are gold: how often labels are wrong, how often they agree (a gold tie counts half), and the ceiling, the
    accuracy that the rater itself is expected to have on labels this noisy: no reward model can expect more."""
    return {
        "label_noise": float(np.mean(gaps < 0)),
        "observed_agreement": agreement(gaps),
        "noise_ceiling": float(likely_agreement(gaps, temperature).mean()),
    }


def noise_of(rankings: Sequence[Ranking], world: World, temperature: float) -> dict[str, float]:
    """`noise_figures` of all the preferences that the rankings carry."""
    preferences = [preference for ranking in rankings for preference in preferences_of(ranking)]
    return noise_figures(gold_gaps(preferences, ratings_of(rankings, world)), temperature)


def beside_the_noise(accuracy: float, rankings: Sequence[Ranking], world: World, temperature: float) -> dict[str, float]:
    """`noise_of` the rankings, and how far of the way from chance to their ceiling an accuracy on them goes."""
    noise = noise_of(rankings, world, temperature)
    return noise | {"share_of_ceiling": (accuracy - 0.5) / (noise["noise_ceiling"] - 0.5)}


def preference_curve(gaps: Floats, temperature: float | None) -> list[dict[str, float]]:
    """How often the response with more was chosen, by how much more: rows of as equal counts as can be, smallest gap first.

    `expected` is what SPEC eq. 1 says of the same pairs at this temperature; without one there is no such column.
    """
    rows = []
    ordered = gaps[np.argsort(np.abs(gaps), kind="stable")]
    for step, part in enumerate(np.array_split(ordered, min(POINTS, len(ordered))), start=1):
        row = {"step": step, "difference": float(np.abs(part).mean()), "preferred": agreement(part), "pairs": len(part)}
        expected = {} if temperature is None else {"expected": float(likely_agreement(part, temperature).mean())}
        rows.append(row | expected)
    return rows


def mean_gold(rankings: Sequence[Ranking], ratings: Ratings) -> dict[str, float]:
    """The mean gold score of all responses, and of each axis of it."""
    found = [ratings[ranking.prompt[-1].content, response.text] for ranking in rankings for response in ranking.responses]
    return {axis: float(np.mean([getattr(rating, axis) for rating in found])) for axis in AXES}
