"""Every model against every other, on answers drawn independently of each other (SPEC eq. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import expm1, log
from statistics import NormalDist

import numpy as np
import torch

from rlhf.evaluation.statistics import LEVEL, Floats, draws, wins
from rlhf.maths.bradley_terry import OpenEnded, strengths

Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
ELO_CENTRE, ELO_PER_LOG_ODDS = 1000.0, 400 / log(10)
TOO_UNLIKELY = 0.05  # of never winning: where the bound of such a model's strength lies


@dataclass(frozen=True, slots=True)
class Ends:
    """An estimate and the ends of its interval, each None where there is no finite one."""

    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Rating:
    """A model's strength in log odds, the same as an Elo rating, and the side on which the interval has no end."""

    strength: Ends
    elo: Ends
    open: str | None  # below, above or both


@dataclass(frozen=True, slots=True)
class Tournament:
    """By model. Where groups of models leave no strengths at all, `ratings` is empty and `open_ended` says why."""

    ratings: dict[str, Rating]
    win_rates: dict[str, dict[str, float]]  # of the first against the second, ties half; ½ against itself
    open_ended: str | None


def tournament(judged: Mapping[str, Floats], samples: int, seed: int) -> Tournament:
    """All models against each other, from the judge's (S, N) scores: S runs of a model (its own number) on N prompts.

    All pairs of runs of two models meet. Strengths sum to 0. Intervals: of prompts and of every model's runs, by
    percentiles of the estimate in draws of both. Of single runs they are those of whole prompts, on which results hang
    together (the sandwich of Liang and Zeger 1986).

    A model that never wins, or never loses, against those that are left is left out in turn (where two are left, the
    winner stays, at 0). Its strength has one bound: there, given the strengths of the others, not one win (loss) against
    the weakest (strongest) in N prompts has a chance of .05. Results against several others on a prompt hang together, so
    the others tighten no bound that must hold.
    """
    runs = list(judged.values())
    pairs = _results(np.concatenate(runs))
    each_run_once = _averaging([np.ones(len(scores)) for scores in runs])
    results = each_run_once @ pairs @ each_run_once.T  # (N, M, M)
    counted = _counted(results.sum(0))
    kept, below, above = _leave_out(counted)
    rows = (counted / len(results) + np.eye(len(runs)) / 2).tolist()
    rates = {model: dict(zip(judged, row, strict=True)) for model, row in zip(judged, rows, strict=True)}
    try:
        found = _fit(counted[np.ix_(kept, kept)])
    except OpenEnded as reason:
        return Tournament({}, rates, _of_whom(reason, [list(judged)[i] for i in kept]))
    if len(pairs[0]) == len(runs):
        errors = _errors_over_prompts(results[:, kept][:, :, kept], found)
        ends = np.stack([found - Z * errors, found + Z * errors])
    else:
        ends = _ends_over_runs(pairs, [len(scores) for scores in runs], kept, found, samples, seed)
    margin = log(expm1(-log(TOO_UNLIKELY) / len(results)))  # log odds of a win, where N losses have that chance
    known = dict(zip(kept, zip(found, *ends, strict=True), strict=True))
    known |= dict.fromkeys(below, (np.nan, -np.inf, found.min() + margin))
    known |= dict.fromkeys(above, (np.nan, found.max() - margin, np.inf))
    return Tournament({model: _rating(*known[i]) for i, model in enumerate(judged)}, rates, None)


def place_of(strength: Ends) -> float:
    """Where to put somebody in an order: who has no finite strength, by the one end that it has."""
    ends = (strength.mean, strength.low, strength.high)
    return next((end for end in ends if end is not None), 0.0)


def _results(scores: Floats) -> Floats:
    """(N, R, R) 1, ½ or 0 of every run against every other, from (R, N)."""
    return wins(scores[:, None], scores[None]).transpose(2, 0, 1)


def _averaging(counts: Sequence[Floats]) -> Floats:
    """(M, R) what turns figures of runs into means of models: counts[i] is how often each run of model i was drawn."""
    rows = np.zeros((len(counts), sum(map(len, counts))))
    start = 0
    for row, drawn in zip(rows, counts, strict=True):
        row[start : start + len(drawn)] = drawn / len(drawn)
        start += len(drawn)
    return rows


def _counted(won: Floats) -> Floats:
    """Nothing meets itself."""
    return won * (1 - np.eye(len(won)))


def _leave_out(counted: Floats) -> tuple[list[int], list[int], list[int]]:
    """Who is left after those who never win (second) and never lose (third) against the rest have gone, over and over."""
    kept = list(range(len(counted)))
    below: list[int] = []
    above: list[int] = []
    while len(kept) > 1:
        among = counted[np.ix_(kept, kept)]
        losers = [i for i, won in zip(kept, among.sum(1), strict=True) if won == 0]
        winners = [i for i, lost in zip(kept, among.sum(0), strict=True) if lost == 0]
        if len(losers) + len(winners) == len(kept):
            winners = []
        if not losers + winners:
            break
        below, above = below + losers, above + winners
        kept = [i for i in kept if i not in losers + winners]
    return kept, below, above


def _fit(counted: Floats) -> Floats:
    return strengths(torch.from_numpy(counted))[0].numpy() if len(counted) > 1 else np.zeros(1)


def _ends_over_runs(
    pairs: Floats, runs: Sequence[int], kept: Sequence[int], found: Floats, samples: int, seed: int
) -> Floats:
    """(2, K) ends of the strengths of those kept, over draws of prompts and of runs; infinite ones included."""
    drawn = []
    for prompts, chosen in draws(len(pairs), runs, samples, seed):
        for b, row in enumerate(prompts):
            won = np.tensordot(np.bincount(row, minlength=len(pairs)).astype(float), pairs, 1)
            counts = [np.bincount(of[b], minlength=count).astype(float) for of, count in zip(chosen, runs, strict=True)]
            averaging = _averaging(counts)[kept]
            drawn.append(_redrawn(_counted(averaging @ won @ averaging.T), found))
    low, high = (1 - LEVEL) / 2, (1 + LEVEL) / 2  # no interpolation, which infinite draws forbid
    found_again = np.stack(drawn)
    return np.stack(
        [
            np.nanquantile(found_again, low, axis=0, method="lower"),
            np.nanquantile(found_again, high, axis=0, method="higher"),
        ]
    )


def _redrawn(counted: Floats, found: Floats) -> Floats:
    """(K,) strengths in one draw: infinite of who never wins or loses in it, not numbers where it falls apart in groups.

    Whoever has a finite one is centred where the estimates of the same models are, so that who has none moves no other.
    """
    kept, below, above = _leave_out(counted)
    again = np.full(len(found), np.nan)
    try:
        fitted = _fit(counted[np.ix_(kept, kept)])
    except OpenEnded:
        return again
    again[kept] = fitted + found[kept].mean()
    again[below], again[above] = -np.inf, np.inf
    return again


def _rating(*known: float) -> Rating:
    finite = [float(x) if np.isfinite(x) else None for x in known]
    elo = [None if x is None else ELO_CENTRE + ELO_PER_LOG_ODDS * x for x in finite]
    side = {(True, False): "below", (False, True): "above", (True, True): "both"}
    return Rating(Ends(*finite), Ends(*elo), side.get((finite[1] is None, finite[2] is None)))


def _of_whom(reason: OpenEnded, models: Sequence[str]) -> str:
    return reason.about.format(*(", ".join(models[i] for i in group) for group in reason.groups))


def _errors_over_prompts(results: Floats, found: Floats) -> Floats:
    """(M,) roots of the diagonal of B (Σ u uᵀ) B: u a prompt's slope of the log-likelihood, B the inverse curvature."""
    chance = 1 / (1 + np.exp(found[None] - found[:, None]))
    slopes = (results - chance).sum(2)  # (N, M); a model's ½ against itself adds nothing
    weight = len(results) * chance * (1 - chance)
    bread = np.linalg.pinv(np.diag(weight.sum(1)) - weight)
    return np.sqrt(np.diag(bread @ (slopes.T @ slopes) @ bread))
