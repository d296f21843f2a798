"""How far labels agree with the rater behind them or with another labeler, and how far anybody could: numpy only.

A gap is (N,), one number a preference: what is measured of the chosen response minus the same of the rejected one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.data.gold import GoldRater
from rlhf.data.sentiment import Sentiment
from rlhf.data.words import words
from rlhf.data.world import GOLD_DECIMALS, Rating
from rlhf.labeling.order import ranks_by
from rlhf.labeling.pairs import preferences_of
from rlhf.records import Preference, Ranking

Floats = NDArray[np.float64]
Ratings = dict[tuple[str, str], Rating | Sentiment]  # by the last turn of the prompt, and the response
POINTS = 10  # of a preference curve
AXES = ("gold", "help", "honest", "logic", "harm")


def ratings_of(rankings: Sequence[Ranking], gold: GoldRater) -> Ratings:
    """The gold rater's word on every response, by prompt and text: each is rated once."""
    asked = {(ranking.prompt[-1].content, r.text): None for ranking in rankings for r in ranking.responses}
    return {(question, text): gold.rate(question, text) for question, text in asked}


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


def noise_of(rankings: Sequence[Ranking], gold: GoldRater, temperature: float) -> dict[str, float]:
    """`noise_figures` of all the preferences that the rankings carry."""
    preferences = [preference for ranking in rankings for preference in preferences_of(ranking)]
    return noise_figures(gold_gaps(preferences, ratings_of(rankings, gold)), temperature)


def beside_the_noise(accuracy: float, rankings: Sequence[Ranking], gold: GoldRater, temperature: float) -> dict[str, float]:
    """`noise_of` the rankings, and how far of the way from chance to their ceiling an accuracy on them goes, where there is
    a way to go."""
    noise = noise_of(rankings, gold, temperature)
    if noise["noise_ceiling"] == 0.5:
        return noise
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
    """The mean gold score of all responses, and of each axis of it that the rater knows."""
    found = [ratings[ranking.prompt[-1].content, response.text] for ranking in rankings for response in ranking.responses]
    known = [axis for axis in AXES if all(hasattr(rating, axis) for rating in found)]
    return {axis: float(np.mean([getattr(rating, axis) for rating in found])) for axis in known}


def gold_ranks(rankings: Sequence[Ranking], ratings: Ratings) -> list[tuple[int, ...]]:
    """The gold rater's own order of every ranking's responses, without noise."""
    return [
        ranks_by([round(ratings[ranking.prompt[-1].content, r.text].gold, GOLD_DECIMALS) for r in ranking.responses])
        for ranking in rankings
    ]


def concordance(rankings: Sequence[Ranking], theirs: Sequence[Sequence[int]]) -> dict[str, float]:
    """How far the rankings agree with another labeler's ranks of the same responses, on all `pairs` of distinct texts.

    `agreement` is the share of the pairs that both order (`ordered_pairs`) in which they name the same text. `kappa` is
    Cohen's (1960) of three answers, this one, that one or a tie: 1 for full agreement, 0 for what chance would bring. Each
    pair counts in both directions, so that it does not matter which text stands first.
    """
    ours = _votes(rankings, [ranking.ranks for ranking in rankings])
    others = _votes(rankings, theirs)
    both = (ours != 0) & (others != 0)
    found: dict[str, float] = {"pairs": len(ours) // 2, "ordered_pairs": int(both.sum()) // 2}
    if both.any():
        found["agreement"] = float(np.mean(ours[both] == others[both]))
    expected = sum(float(np.mean(ours == vote) * np.mean(others == vote)) for vote in (-1, 0, 1)) if len(ours) else 1.0
    if expected < 1:
        found["kappa"] = (float(np.mean(ours == others)) - expected) / (1 - expected)
    return found


def _votes(rankings: Sequence[Ranking], ranks: Sequence[Sequence[int]]) -> Floats:
    """1 where the first text of a pair is the better one, -1 where the second is, 0 for a tie; every pair in both
    directions."""
    votes = []
    for ranking, places in zip(rankings, ranks, strict=True):
        place_of = {response.text: place for response, place in zip(ranking.responses, places, strict=True)}
        votes += [np.sign(there - here) for here, there in itertools.permutations(place_of.values(), 2)]
    return np.array(votes, dtype=np.float64)


def beside_gold(
    rankings: Sequence[Ranking], preferences: Sequence[Preference], gold: GoldRater, temperature: float | None
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """What the gold rater says of labels, as figures and as a curve.

    temperature: of the labels, where the gold rater itself made them; None: somebody else did, and `gold` says how far they
    agree.
    """
    ratings = ratings_of(rankings, gold)
    gaps = gold_gaps(preferences, ratings)
    if temperature is None:
        about: dict[str, Any] = {"gold": concordance(rankings, gold_ranks(rankings, ratings))}
    else:
        about = noise_figures(gaps, temperature)
    return about | {"mean_gold": mean_gold(rankings, ratings)}, preference_curve(gaps, temperature)
