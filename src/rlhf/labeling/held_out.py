"""What a reward model's scores are worth on held-out labels, and where they fail: numpy only.

`values` are a number a response, in the order of the rankings and their responses. A gap is (N,), one number a pair: what
is measured of the chosen response minus the same of the rejected one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rlhf.data.gold import GoldRater
from rlhf.data.world import GOLD_DECIMALS
from rlhf.labeling.agreement import Floats, agreement, likely_agreement, ratings_of
from rlhf.records import Ranking

Values = Sequence[Sequence[float]]
BINS = 10  # of the probabilities from 0.5 to 1
QUANTILES = 4
EDGES = np.linspace(0.5, 1, BINS + 1)


def label_gaps(values: Values, rankings: Sequence[Ranking]) -> Floats:
    """(N,) of every pair that the labels order."""
    return _gaps(values, [ranking.pairs() for ranking in rankings])


def gold_values(rankings: Sequence[Ranking], gold: GoldRater) -> list[list[float]]:
    """The gold rater's score of every response."""
    ratings = ratings_of(rankings, gold)
    return [[ratings[ranking.prompt[-1].content, r.text].gold for r in ranking.responses] for ranking in rankings]


def reliability(score_gaps: Floats) -> list[dict[str, float]]:
    """Pairs by the probability σ(|gap|) that SPEC eq. 1 gives the response that scores higher, in equal parts of [0.5, 1].

    `step` numbers the part; `right` is the share of its pairs whose labels say so too, an equal score half. A part without
    pairs has no row. Source: Guo et al. (2017), section 2.
    """
    predicted = likely_agreement(score_gaps, temperature=1.0)
    part_of = np.digitize(predicted, EDGES[1:-1])
    return [
        {
            "step": part + 1,
            "predicted": float(predicted[part_of == part].mean()),
            "right": agreement(score_gaps[part_of == part]),
            "pairs": int(np.sum(part_of == part)),
        }
        for part in np.unique(part_of).tolist()
    ]


def expected_calibration_error(rows: Sequence[dict[str, float]]) -> float:
    """How far `right` is from `predicted`, mean over all pairs (ECE: Guo et al. 2017, eq. 3)."""
    return sum(row["pairs"] * abs(row["right"] - row["predicted"]) for row in rows) / sum(row["pairs"] for row in rows)


def by_length(score_gaps: Floats, length_gaps: Floats) -> dict[str, dict[str, float]]:
    """Accuracy where the chosen response is longer than the rejected one, as long, and shorter."""
    signs = {"chosen_longer": 1, "same_length": 0, "chosen_shorter": -1}
    return {name: _accuracy(score_gaps[np.sign(length_gaps) == sign]) for name, sign in signs.items()}


def by_gap(score_gaps: Floats, gaps: Floats, name: str) -> dict[str, dict[str, float]]:
    """Accuracy by how far apart the pair is in something else: parts of as equal counts as can be, the closest pairs first.

    name: of that something's mean gap, under which a part says it.
    """
    order = np.argsort(np.abs(gaps), kind="stable")
    parts = np.array_split(order, min(QUANTILES, len(order)))
    return {
        f"quarter_{number}": {name: float(np.abs(gaps[part]).mean())} | _accuracy(score_gaps[part])
        for number, part in enumerate(parts, start=1)
    }


def gold_agreement(scores: Values, gold: Values) -> dict[str, float]:
    """The share of pairs in gold order, an equal score half: every pair that differs in gold, whatever its label."""
    every = [list(itertools.combinations(range(len(row)), 2)) for row in gold]
    gold_gaps = _gaps(gold, every).round(GOLD_DECIMALS)
    found = _accuracy((_gaps(scores, every) * np.sign(gold_gaps))[gold_gaps != 0])
    return {"gold_pairs": found.pop("pairs")} | {f"gold_{name}": share for name, share in found.items()}


def held_out_figures(scores: Values, lengths: Values, rankings: Sequence[Ranking]) -> dict[str, Any]:
    """Calibration and accuracy by length, and by margin where the data have any; of pairs that the labels order, of which
    there is at least one."""
    gaps, length_gaps = label_gaps(scores, rankings), label_gaps(lengths, rankings)
    margins = np.array([ranking.margin for ranking in rankings for _ in ranking.pairs()], dtype=np.float64)
    rows = reliability(gaps)
    parts = {_percent(row): {name: row[name] for name in ("predicted", "right", "pairs")} for row in rows}
    return {
        "calibration": {"expected_error": expected_calibration_error(rows), "predicted_percent": parts},
        "by_length": by_length(gaps, length_gaps),
        "by_length_gap": by_gap(gaps, length_gaps, "tokens"),
    } | ({"by_margin": by_gap(gaps, margins, "margin")} if margins.any() else {})


def beside_the_gold(scores: Values, rankings: Sequence[Ranking], gold: GoldRater) -> dict[str, Any]:
    """How accuracy depends on the gold gap, and how far the scores agree with gold where labels are left out."""
    values = gold_values(rankings, gold)
    gold_gaps = label_gaps(values, rankings).round(GOLD_DECIMALS)
    return {"by_gold_gap": by_gap(label_gaps(scores, rankings), gold_gaps, "gold_gap")} | gold_agreement(scores, values)


def _gaps(values: Values, pairs: Sequence[Iterable[tuple[int, int]]]) -> Floats:
    return np.array([row[i] - row[j] for row, some in zip(values, pairs, strict=True) for i, j in some], dtype=np.float64)


def _accuracy(score_gaps: Floats) -> dict[str, float]:
    """Without pairs there is no accuracy."""
    return ({"accuracy": agreement(score_gaps)} if len(score_gaps) else {}) | {"pairs": len(score_gaps)}


def _percent(row: dict[str, float]) -> str:
    """The ends of a part, as a name without a dot: 50_to_55."""
    low, high = (round(100 * EDGES[int(row["step"]) - 1 + end]) for end in (0, 1))
    return f"{low}_to_{high}"
