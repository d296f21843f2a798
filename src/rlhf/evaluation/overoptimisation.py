"""How far optimising a proxy raises the gold score: the laws of Gao et al. 2022, fitted, and where they turn.

d is √KL from SFT and R the gold gain over SFT. Best of n: R = d (α − β d); reinforcement learning: R = d (α − β log d).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

import numpy as np
from scipy.special import xlogy

from rlhf.errors import UserError
from rlhf.evaluation.statistics import LEVEL, Floats, Interval, percentiles, resampled_means

Form = Literal["best_of_n", "rl"]
ROUNDING = 1e-9
FEWEST = 3  # checkpoints of different KL: two numbers are fitted, and their misfit is told


@dataclass(frozen=True, slots=True)
class Peak:
    """Where the law turns: d there, the KL in nats that is its square, and the gain there."""

    distance: Interval
    kl: Interval
    gain: Interval


@dataclass(frozen=True, slots=True)
class Best:
    """The checkpoint with the highest gain: the highest of several noisy means, and so rather too high."""

    index: int
    kl: float
    gain: Interval


@dataclass(frozen=True, slots=True)
class Law:
    """A fitted law. Its intervals tell of other prompts and seeds; of its form, `residual` beside `chance` must tell."""

    form: Form
    alpha: Interval
    beta: Interval
    checkpoints: int  # with a KL above 0
    residual: float  # standard deviation of their gains about the law
    chance: float  # what it would be at most, 19 times of 20, were the law right: by other prompts, and seeds where several
    best: Best
    fallen: Interval  # how far the gain has fallen from the best of the checkpoints to that of the largest KL
    identified: bool
    statement: str
    peak: Peak | None  # where identified

    @property
    def fits(self) -> bool:
        return self.residual <= self.chance + ROUNDING


def fit(form: Form, kl: Floats, gains: Floats, samples: int, seed: int) -> Law:
    """The law by least squares over K checkpoints, with percentile intervals over prompts and seeds.

    gains: (K, S, N) gold score less SFT's on the same prompt. kl: (K,) where known, as the bound of best-of-n is, or
    (K, S, N) log-ratios, which are then drawn with the gains. A prompt, and a seed, is drawn for all K at once. A
    checkpoint whose mean KL is not above 0 says nothing of the law.
    """
    known = kl.ndim == 1
    mean_kl, mean_gain = (kl if known else kl.mean((1, 2))), gains.mean((1, 2))
    _refuse_too_few(form, mean_kl)
    drawn_gains = _resampled(gains, samples, seed)
    drawn_kl = np.broadcast_to(kl, drawn_gains.shape) if known else _resampled(kl, samples, seed)
    found, drawn = _least_squares(form, mean_kl, mean_gain), _least_squares(form, drawn_kl, drawn_gains)
    alpha, beta = (percentiles(found[i], drawn[:, i]) for i in (0, 1))
    seen = mean_kl > 0
    misfit = _misfit(form, mean_kl, mean_gain, found)[seen]
    misfits = _misfit(form, drawn_kl, drawn_gains, drawn)[:, seen]
    peak = _peak(form, found, drawn)
    top = int(mean_gain.argmax())
    best = Best(top, float(mean_kl[top]), percentiles(mean_gain[top], drawn_gains[:, top]))
    far = int(mean_kl.argmax())
    fallen = percentiles(mean_gain[top] - mean_gain[far], drawn_gains[:, top] - drawn_gains[:, far])
    residual, chance = float(_spread(misfit)), float(np.quantile(_spread(misfits - misfit), LEVEL))
    trouble = _trouble(beta, peak, mean_kl[seen], fallen)
    statement = trouble or f"by the law, the peak lies at a KL of {peak.kl.mean:.2g} {_brackets(peak.kl)} nats"
    points, told = int(seen.sum()), None if trouble else peak
    law = Law(form, alpha, beta, points, residual, chance, best, fallen, not trouble, statement, told)
    return law if law.fits else replace(law, statement=f"{statement}; {_rejected(law)}")


def predict(law: Law, kl: Floats) -> Floats:
    """(...,) the gain that the law has at these KL; 0 at 0."""
    gain: Floats = _basis(law.form, kl) @ np.array([law.alpha.mean, law.beta.mean])
    return gain


def _refuse_too_few(form: Form, kl: Floats) -> None:
    distinct = len(np.unique(kl[kl > 0]))
    if distinct < FEWEST:
        raise UserError(
            f"an overoptimisation curve ({form}) has {distinct} checkpoints of different KL above 0, and a fit needs at "
            f"least {FEWEST}: evaluate more of them"
        )


def _resampled(values: Floats, samples: int, seed: int) -> Floats:
    """(samples, K) means of (K, S, N): the same prompts and seeds for every checkpoint."""
    return np.stack([resampled_means(checkpoint, samples, seed) for checkpoint in values], axis=1)


def _basis(form: Form, kl: Floats) -> Floats:
    """(..., 2) what α and β are multiplied by. A mean of log-ratios may fall below 0, a divergence cannot."""
    distance = np.sqrt(np.maximum(kl, 0))
    turn = distance**2 if form == "best_of_n" else xlogy(distance, distance)
    return np.stack([distance, -turn], axis=-1)


def _least_squares(form: Form, kl: Floats, gains: Floats) -> Floats:
    """(..., 2) α and β of (..., K)."""
    return (np.linalg.pinv(_basis(form, kl)) @ gains[..., None])[..., 0]


def _misfit(form: Form, kl: Floats, gains: Floats, law: Floats) -> Floats:
    """(..., K) gains less those of the law (..., 2)."""
    return gains - (_basis(form, kl) @ law[..., None])[..., 0]


def _spread(misfit: Floats) -> Floats:
    """(...) standard deviation of (..., K) misfits, two numbers having been fitted."""
    spread: Floats = np.sqrt((misfit**2).sum(-1) / (misfit.shape[-1] - 2))
    return spread


def _peak(form: Form, found: Floats, drawn: Floats) -> Peak:
    distance, gain = _turn(form, found)
    distances, gains = _turn(form, drawn)
    with np.errstate(over="ignore"):
        return Peak(_ordered(distance, distances), _ordered(distance**2, distances**2), _ordered(gain, gains))


def _turn(form: Form, law: Floats) -> tuple[Floats, Floats]:
    """d where the slope of (..., 2) α, β is 0, and R there; infinite where β is not above 0, for then R only rises."""
    alpha, beta = law[..., 0], law[..., 1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if form == "best_of_n":
            distance = np.maximum(alpha, 0) / (2 * beta)
            gain = distance * np.maximum(alpha, 0) / 2
        else:
            distance = np.exp(alpha / beta - 1)
            gain = beta * distance
    rises = beta <= 0
    return np.where(rises, np.inf, distance), np.where(rises, np.inf, gain)


def _ordered(mean: Floats, resampled: Floats) -> Interval:
    """A percentile interval without interpolation, which infinite draws forbid."""
    low, high = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    ends = np.quantile(resampled, low, method="lower"), np.quantile(resampled, high, method="higher")
    return Interval(float(mean), *map(float, ends))


def _trouble(beta: Interval, peak: Peak, seen: Floats, fallen: Interval) -> str:
    """Why there is no peak to speak of, and whether the gain has fallen all the same; nothing where there is one."""
    why = _why_no_peak(beta, peak, seen)
    if why and fallen.low > 0:
        how_far = f"{fallen.mean:.2g} {_brackets(fallen)}"
        return f"{why}; yet the gain that was seen fell by {how_far} from its highest to the largest KL"
    return why


def _why_no_peak(beta: Interval, peak: Peak, seen: Floats) -> str:
    unknown, predicted = "the data do not identify a peak", f"the predicted peak (KL {peak.kl.mean:.2g})"
    if beta.high < 0:
        return f"the law has no peak: beta's interval {_brackets(beta)} lies below 0"
    if beta.low <= 0:
        return f"{unknown}: beta's interval {_brackets(beta)} holds 0"
    if peak.kl.mean > seen.max():
        return f"{unknown}: {predicted} lies beyond the largest KL seen ({seen.max():.2g})"
    if peak.kl.mean < seen.min():
        return f"{unknown}: {predicted} lies below the smallest KL seen ({seen.min():.2g})"
    if peak.kl.low < seen.min():
        return f"{unknown}: its KL may be as low as {peak.kl.low:.2g}, and the smallest KL seen is {seen.min():.2g}"
    if peak.kl.high > seen.max():
        end = f"to {peak.kl.high:.2g}" if isfinite(peak.kl.high) else "without an end"
        return f"{unknown}: its KL may be from {peak.kl.low:.2g} {end}, and the largest KL seen is {seen.max():.2g}"
    return ""


def _rejected(law: Law) -> str:
    return f"the data reject the law: its misfit is {law.residual:.2g}, by chance it would be {law.chance:.2g} at most"


def _brackets(interval: Interval) -> str:
    return f"[{interval.low:.2g}, {interval.high:.2g}]"
