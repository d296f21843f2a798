"""The figures of an update."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf.maths.diagnostics import approximate_kl, clip_fraction, explained_variance, ratio_mean_and_peak
from tests.helpers import NAN, assert_near, float64, lengths_to_mask


def test_clip_fraction_by_hand() -> None:
    ratios = float64([[1.19, 1.21, 0.79, 0.81, NAN], [1.0, NAN, NAN, NAN, NAN]])
    fraction = clip_fraction(ratios.log(), torch.zeros(2, 5), lengths_to_mask([4, 1], 5), 0.2)
    assert_near(fraction, 0.4, 1e-7)  # 1.21 and 0.79 of five


def test_a_ratio_on_the_bound_has_not_left() -> None:
    bounds = float64([[math.log1p(0.2), math.log1p(-0.2)]])
    assert clip_fraction(bounds, torch.zeros(1, 2), lengths_to_mask([2]), 0.2).item() == 0.0


def test_approximate_kl_by_hand() -> None:
    # ratios 1, 2 and 0.5: ratio - 1 - log ratio = 0, 1 - log 2, -0.5 + log 2; the mean of the three is 0.5 / 3
    logprobs = float64([[1.0, 2.0, NAN], [0.5, NAN, NAN]]).log()
    assert_near(approximate_kl(logprobs, torch.zeros(2, 3), lengths_to_mask([2, 1], 3)), 0.5 / 3)
    twice = float64([[2.0]]).log()
    assert_near(approximate_kl(twice, torch.zeros(1, 1), lengths_to_mask([1])), 1 - math.log(2))


def test_ratios_by_hand() -> None:
    old = float64([[0.5, 0.1, NAN], [0.2, 0.9, NAN]]).log()
    now = float64([[0.25, 0.3, 99.0], [0.2, 99.0, NAN]]).log()  # ratios 0.5, 3 and 1; the 99s are padding
    mean, peak = ratio_mean_and_peak(now, old, lengths_to_mask([2, 1], 3))
    assert_near([mean, peak], [1.5, 3.0])
    mean, peak = ratio_mean_and_peak(now[:, :1], old[:, :1], lengths_to_mask([1, 1]))
    assert_near([mean, peak], [0.75, 1.0])
    small = ratio_mean_and_peak(float64([[-9.0, NAN]]), float64([[-8.0, NAN]]), lengths_to_mask([1], 2))
    assert_near(small, [math.exp(-1)] * 2)


def test_nothing_learnt_yet() -> None:
    logprobs = float64([[-1.0, -2.5, NAN]])
    mask = lengths_to_mask([2], 3)
    assert [float(x) for x in ratio_mean_and_peak(logprobs, logprobs.clone(), mask)] == [1.0, 1.0]
    assert approximate_kl(logprobs, logprobs.clone(), mask).item() == 0.0
    assert clip_fraction(logprobs, logprobs.clone(), mask, 0.2).item() == 0.0


def test_explained_variance_by_hand() -> None:
    returns, mask = float64([[1.0, 3.0, NAN], [5.0, NAN, NAN]]), lengths_to_mask([2, 1], 3)
    assert_near(explained_variance(returns.clone(), returns, mask), 1.0)
    assert_near(explained_variance(returns + 9.0, returns, mask), 1.0)  # a constant error explains the variance all the same
    assert_near(explained_variance(torch.zeros(2, 3), returns, mask), 0.0)
    assert_near(explained_variance(-returns, returns, mask), -3.0)  # the error is 2R: 1 - 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, 1000.1])
def test_returns_that_do_not_vary_leave_nothing_to_explain(constant: float, dtype: torch.dtype) -> None:
    returns = torch.tensor([[constant] * 3 + [NAN], [constant] * 4], dtype=dtype)
    mask = lengths_to_mask([3, 4])
    for values in (returns.clone(), torch.zeros(2, 4, dtype=dtype), torch.arange(8, dtype=dtype).view(2, 4)):
        assert explained_variance(values, returns, mask).item() == 0.0


def test_returns_that_vary_by_a_thousandth_are_explained() -> None:
    returns, mask = torch.tensor([[999.0, 1001.0]]), lengths_to_mask([2])
    assert explained_variance(returns.clone(), returns, mask).item() == 1.0
    assert explained_variance(torch.tensor([[0.0, 1.0]]), returns, mask).item() == 0.75  # errors 999 and 1000: 1 - .25 / 1


@pytest.mark.parametrize("clip_range", [0.0, 1.0, -0.2, 1.5, NAN])
def test_refusals(clip_range: float) -> None:
    x, mask = torch.zeros(2, 3), lengths_to_mask([3, 1])
    with pytest.raises(ValueError, match=r"clip_range \(.*must be in \(0\.0, 1\.0\)"):
        clip_fraction(x, x, mask, clip_range)
