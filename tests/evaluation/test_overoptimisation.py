"""Laws recovered from data that follow them, and peaks claimed only where the data show one."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from math import e, exp, log, sqrt

import numpy as np
import pytest

from rlhf.errors import UserError
from rlhf.evaluation.overoptimisation import Form, fit, predict
from rlhf.evaluation.statistics import Floats, bootstrap_over_seeds

KL = np.array([0.0, 0.25, 1.0, 2.25, 4.0, 9.0, 16.0])
FORMS: tuple[Form, ...] = ("best_of_n", "rl")


def law(form: Form, alpha: float, beta: float, kl: float) -> float:
    d = sqrt(kl)
    return d * (alpha - beta * (d if form == "best_of_n" else log(d))) if d else 0.0


def gains(form: Form, alpha: float, beta: float, noise: float = 0.0, prompts: int = 80, seed: int = 0) -> Floats:
    """(K, 1, N): the law for the mean prompt; noise is part each prompt's own slope and part each answer's."""
    generator = np.random.default_rng(seed)
    exact = np.array([law(form, alpha, beta, kl) for kl in KL])[:, None]
    slopes = generator.normal(size=prompts) * noise
    return (exact + np.sqrt(KL)[:, None] * slopes + noise * generator.normal(size=(len(KL), prompts)))[:, None]


@pytest.mark.parametrize("form", FORMS)
def test_a_law_without_noise_is_found(form: Form) -> None:
    found = fit(form, KL, gains(form, 1.2, 0.4), 50, 0)
    assert (found.alpha.mean, found.beta.mean) == pytest.approx((1.2, 0.4))
    assert found.residual == pytest.approx(0.0, abs=1e-12)
    assert predict(found, KL) == pytest.approx([law(form, 1.2, 0.4, kl) for kl in KL])


@pytest.mark.parametrize(("form", "alpha", "beta"), [("best_of_n", 1.2, 0.4), ("rl", 0.6, 0.5), ("rl", 0.2, 0.5)])
def test_no_other_kl_is_predicted_to_gain_more_than_the_peak(form: Form, alpha: float, beta: float) -> None:
    found = fit(form, KL, gains(form, alpha, beta), 50, 0)
    assert found.peak is not None
    nearby = found.peak.kl.mean * np.linspace(0.5, 1.5, 1001)
    assert nearby[predict(found, nearby).argmax()] == pytest.approx(found.peak.kl.mean, rel=2e-3)
    assert predict(found, nearby).max() == pytest.approx(found.peak.gain.mean)
    assert found.peak.distance.mean**2 == pytest.approx(found.peak.kl.mean)


@pytest.mark.parametrize(
    ("form", "alpha", "beta", "distance", "gain"),
    [("best_of_n", 1.2, 0.3, 2.0, 1.2), ("rl", 0.5, 0.5, 1.0, 0.5), ("rl", 1.0, 0.5, e, e / 2)],
)
def test_peaks_are_those_of_the_calculus(form: Form, alpha: float, beta: float, distance: float, gain: float) -> None:
    found = fit(form, KL, gains(form, alpha, beta), 50, 0)
    assert found.peak is not None
    assert (found.peak.distance.mean, found.peak.gain.mean) == pytest.approx((distance, gain))
    assert found.identified
    assert (
        found.statement
        == f"by the law, the peak lies at a KL of {distance**2:.2g} [{distance**2:.2g}, {distance**2:.2g}] nats"
    )


@pytest.mark.parametrize("form", FORMS)
def test_intervals_cover_the_law_95_times_in_100(form: Form) -> None:
    alpha, beta = (1.0 if form == "best_of_n" else 0.5), 0.4
    distance = alpha / (2 * beta) if form == "best_of_n" else exp(alpha / beta - 1)
    repetitions, covered, peaks, fits = 200, np.zeros(2), [], []
    for seed in range(repetitions):
        found = fit(form, KL, gains(form, alpha, beta, noise=0.3, seed=seed), 200, seed)
        truths = ((found.alpha, alpha), (found.beta, beta))
        covered += [interval.low <= truth <= interval.high for interval, truth in truths]
        fits.append(found.fits)
        peaks += [found.peak.kl.low <= distance**2 <= found.peak.kl.high] if found.peak else []
    assert len(peaks) > 190
    for share in (*covered / repetitions, np.mean(peaks), np.mean(fits)):
        assert 0.89 < share < 0.99  # within four standard errors of .94


def test_a_kl_that_is_estimated_is_drawn_with_the_gains() -> None:
    """Gains that follow each answer's own log-ratio: drawn apart, the same noise would count against the law."""
    generator = np.random.default_rng(1)
    spread = np.exp(0.5 * generator.normal(size=(1, 3, 60)))
    kl = KL[:, None, None] * spread
    followed = fit("best_of_n", kl, 0.3 * np.sqrt(kl.mean((1, 2)))[:, None, None] - 0.1 * kl, 400, 0)
    assert followed.beta.mean == pytest.approx(0.1)
    held = fit("best_of_n", kl.mean((1, 2)), 0.3 * np.sqrt(kl.mean((1, 2)))[:, None, None] - 0.1 * kl, 400, 0)
    assert held.beta.mean == pytest.approx(0.1)
    assert followed.beta.high - followed.beta.low < 0.3 * (held.beta.high - held.beta.low)


@pytest.mark.parametrize(
    ("form", "alpha", "beta", "statement"),
    [
        ("best_of_n", 0.5, -0.2, "the law has no peak: beta's interval [-0.2, -0.2] lies below 0"),
        ("best_of_n", 1.5, 0.15, "the predicted peak (KL 25) lies beyond the largest KL seen (16)"),
        ("rl", 1.2, 0.4, "the predicted peak (KL 55) lies beyond the largest KL seen (16)"),
        ("best_of_n", 0.2, 0.5, "the predicted peak (KL 0.04) lies below the smallest KL seen (0.25)"),
        ("best_of_n", -0.2, 0.5, "the predicted peak (KL 0) lies below the smallest KL seen (0.25)"),
    ],
)
def test_a_peak_that_was_not_passed_is_not_claimed(form: Form, alpha: float, beta: float, statement: str) -> None:
    found = fit(form, KL, gains(form, alpha, beta), 50, 0)
    assert not found.identified
    assert found.peak is None
    unknown = "" if beta < 0 else "the data do not identify a peak: "
    assert found.statement.partition("; yet")[0] == unknown + statement


@pytest.mark.parametrize("form", FORMS)
def test_noise_that_could_turn_the_law_either_way_is_told(form: Form) -> None:
    found = fit(form, KL, gains(form, 0.5, 0.0, noise=1.0), 300, 0)
    assert found.beta.low < 0 < found.beta.high
    ends = f"[{found.beta.low:.2g}, {found.beta.high:.2g}]"
    assert found.statement == f"the data do not identify a peak: beta's interval {ends} holds 0"
    assert not found.identified


def test_the_best_checkpoint_and_the_misfit_are_those_seen() -> None:
    """Three checkpoints at d 1, 2, 3 off the line R / d = 2 − d / 2 by a vector that no such law can follow."""
    off = np.cross([1.0, 2.0, 3.0], [1.0, 4.0, 9.0])
    off = 0.3 * off / np.linalg.norm(off)
    measured = np.array([0.0, 1.5, 2.0, 1.5]) + np.concatenate([[0.0], off])
    found = fit("best_of_n", np.array([0.0, 1.0, 4.0, 9.0]), np.tile(measured[:, None, None], (1, 2, 5)), 20, 0)
    assert (found.alpha.mean, found.beta.mean) == pytest.approx((2.0, 0.5))
    assert found.checkpoints == 3
    assert found.residual == pytest.approx(0.3)  # three seen, two fitted: one degree of freedom is left
    assert (found.best.index, found.best.kl, found.best.gain.mean) == pytest.approx((2, 4.0, measured[2]))


def test_a_fall_that_no_law_describes_is_told() -> None:
    """Up, and at once down to where it cannot fall further: the law of reinforcement learning has no such form."""
    measured = np.tile(np.array([0.0, 1.0, -4.0, -4.0, -4.0, -4.0, -4.0])[:, None, None], (1, 1, 50))
    measured = measured + 0.1 * np.random.default_rng(0).normal(size=measured.shape)
    found = fit("rl", KL, measured, 100, 0)
    assert (found.best.index, found.identified) == (1, False)
    assert found.fallen.low < 5.0 < found.fallen.high
    ends = f"[{found.fallen.low:.2g}, {found.fallen.high:.2g}]"
    says = f"; yet the gain that was seen fell by 5 {ends} from its highest to the largest KL; the data reject the law: "
    assert says in found.statement


def test_a_gain_that_only_rises_has_not_fallen() -> None:
    found = fit("rl", KL, gains("rl", 1.5, 0.1, noise=0.2), 100, 0)
    assert (found.fallen.mean, found.fallen.low, found.fallen.high) == (0.0, 0.0, 0.0)
    assert "yet" not in found.statement


def test_the_best_checkpoint_has_the_interval_of_its_own_gains() -> None:
    measured = gains("rl", 0.5, 0.4, noise=0.5)
    best = fit("rl", KL, measured, 100, 7).best
    assert best.gain == bootstrap_over_seeds(measured[best.index], 100, 7)


def test_a_checkpoint_whose_kl_came_out_below_0_leaves_the_law_as_it_is() -> None:
    measured = np.vstack([gains("rl", 0.5, 0.4), np.full((1, 1, 80), 5.0)])
    found = fit("rl", np.append(KL, -0.1), measured, 20, 0)
    assert (found.alpha.mean, found.beta.mean, found.residual) == pytest.approx((0.5, 0.4, 0.0))
    assert predict(found, np.array([-0.1])) == pytest.approx([0.0])


def barely_turning(form: Form, alpha: float, samples: int) -> Floats:
    """Data of β .4 with as much noise as leaves β's interval just above 0: β is linear in what is measured."""
    noise = np.random.default_rng(2).normal(size=(len(KL), 1, 80))
    noise -= noise.mean(2, keepdims=True)
    return gains(form, alpha, 0.4) + noise * (0.4 - 1e-6) / -fit(form, KL, noise, samples, 0).beta.low


@pytest.mark.parametrize(
    ("form", "alpha", "samples", "end"), [("best_of_n", 3.0, 401, r"to \d\S+"), ("rl", 0.9, 41, "without an end")]
)
def test_a_peak_that_may_lie_beyond_what_was_seen_is_not_claimed(form: Form, alpha: float, samples: int, end: str) -> None:
    """The peak itself lies among the checkpoints, and beta is above 0, both barely."""
    found = fit(form, KL, barely_turning(form, alpha, samples), samples, 0)  # whose lower end is one of the draws
    assert found.beta.low == pytest.approx(1e-6)
    unknown = "the data do not identify a peak: its KL may be from"
    assert re.fullmatch(rf"{unknown} [\d.]+ {end}, and the largest KL seen is {KL.max():.2g}", found.statement)
    assert (found.identified, found.peak) == (False, None)


def test_a_peak_that_may_lie_below_what_was_seen_is_not_claimed() -> None:
    """The peak is at a KL of 1.1, the smallest seen is 1, and the noise moves it by more than that."""
    beyond = KL >= 1.0
    measured = gains("best_of_n", 1.05, 0.5, noise=0.5)[beyond]
    found = fit("best_of_n", KL[beyond], measured, 400, 0)
    assert found.beta.low > 0
    unknown = "the data do not identify a peak: its KL may be as low as"
    assert re.match(rf"{unknown} 0\.\d+, and the smallest KL seen is 1; yet", found.statement)
    assert (found.identified, found.peak) == (False, None)


@pytest.mark.parametrize(("kl", "distinct"), [([0.0, 1.0, 2.0], 2), ([1.0, 1.0, 2.0, 2.0], 2), ([0.0, -0.1, 3.0], 1)])
def test_too_few_checkpoints_are_refused_with_their_number(kl: list[float], distinct: int) -> None:
    with pytest.raises(UserError, match=rf"has {distinct} checkpoints of different KL above 0.*at least 3"):
        fit("rl", np.array(kl), np.zeros((len(kl), 1, 5)), 10, 0)


def test_what_is_found_can_be_written_as_json() -> None:
    for beta in (0.4, 0.0):
        json.dumps(asdict(fit("rl", KL, gains("rl", 0.3, beta, noise=0.5), 100, 0)), allow_nan=False)


@pytest.mark.parametrize(("true", "fitted"), [("best_of_n", "rl"), ("rl", "best_of_n")])
def test_a_law_that_the_data_reject_says_so(true: Form, fitted: Form) -> None:
    """Both laws rise, turn and fall; the noise decides whether one can be told from the other."""
    told = {noise: fit(fitted, KL, gains(true, 1.0, 0.4, noise=noise), 200, 0) for noise in (0.1, 10.0)}
    assert [told[noise].fits for noise in (0.1, 10.0)] == [False, True]
    misfit, chance = told[0.1].residual, told[0.1].chance
    says = f"; the data reject the law: its misfit is {misfit:.2g}, by chance it would be {chance:.2g} at most"
    assert told[0.1].statement.endswith(says)
    assert "reject" not in told[10.0].statement
