from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.maths.masked import masked_mean, masked_variance, masked_whiten
from tests.helpers import NAN, assert_near, float64, lengths_to_mask
from tests.maths import twins
from tests.maths.batches import ragged, to_padded


def test_mean_counts_real_tokens_only() -> None:
    x = float64([[1.0, 2.0, 100.0], [6.0, 100.0, 100.0]])
    assert_near(
        masked_mean(x, lengths_to_mask([2, 1], 3)), 3.0
    )  # (1 + 2 + 6) / 3, not / 6 and not the mean of row means 3.75


def test_mean_of_any_shape() -> None:
    assert_near(masked_mean(float64([1.0, 5.0]), torch.tensor([False, True])), 5.0)
    assert_near(masked_mean(float64([[[1.0], [3.0]]]), torch.ones(1, 2, 1, dtype=torch.bool)), 2.0)


def test_mean_has_the_gradient_of_a_mean() -> None:
    x = float64([[1.0, 2.0, NAN]]).requires_grad_()
    masked_mean(x, lengths_to_mask([2], 3)).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.5, 0.5, 0.0]]


def test_bfloat16_is_summed_in_float32() -> None:
    # A running sum in bfloat16 stops at 256: its next number is 258.
    ones = torch.ones(1, 4096, dtype=torch.bfloat16)
    mean = masked_mean(ones, torch.ones(1, 4096, dtype=torch.bool))
    assert mean.dtype == torch.float32
    assert mean.item() == 1.0


def test_a_mean_is_not_rounded_to_bfloat16() -> None:
    x = torch.tensor([[1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0]], dtype=torch.bfloat16)
    assert_near(masked_mean(x, torch.ones(1, 7, dtype=torch.bool)), 8 / 7, 1e-7)


def test_whitened_by_hand() -> None:
    # 1, 3, 5: mean 3, population variance 8/3; the padded 99s are not seen and become 0.
    x = float64([[1.0, 3.0, 99.0], [5.0, 99.0, 99.0]])
    step = 2 / (8 / 3) ** 0.5
    assert_near(masked_whiten(x, lengths_to_mask([2, 1], 3)), [[-step, 0.0, 0.0], [step, 0.0, 0.0]], 1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [2, 3, 7, 100, 4097])
@pytest.mark.parametrize("constant", [1e-5, 0.1, -100.3, 1000.1, 1e7 + 1 / 3])
def test_whitening_a_constant_gives_zeros_and_no_noise(constant: float, count: int, dtype: torch.dtype) -> None:
    # The mean of equal numbers is off by a rounding or two; divided by a deviation of that size, it would become 1.
    x = torch.full((1, count), constant, dtype=dtype)
    assert masked_whiten(x, torch.ones(1, count, dtype=torch.bool)).eq(0).all()


@pytest.mark.parametrize(("dtype", "number"), [(torch.float32, 2.0**10), (torch.float64, 2.0**39)])
@pytest.mark.parametrize(("deviation", "differ"), [(1, False), (15, False), (17, True), (100, True), (2**13, True)])
def test_what_rounding_cannot_make_is_whitened(dtype: torch.dtype, number: float, deviation: int, differ: bool) -> None:
    """Deviations in steps to the next number, which are 2^-13: up to 16 may be rounding; 2^13 are a thousandth of 2^10."""
    step = 2.0**-13
    x = torch.tensor([[number, number + 2 * deviation * step, NAN]], dtype=dtype)
    white = deviation * step / math.sqrt((deviation * step) ** 2 + 1e-8) if differ else 0.0
    assert_near(masked_whiten(x, lengths_to_mask([2], 3)), [[-white, white, 0.0]], 1e-6)


def test_whitening_one_token_gives_zero() -> None:
    assert_near(masked_whiten(float64([[7.0, NAN]]), lengths_to_mask([1], 2)), [[0.0, 0.0]])


def test_variance_by_hand() -> None:
    assert_near(masked_variance(float64([[1.0, 3.0, NAN], [5.0, NAN, NAN]]), lengths_to_mask([2, 1], 3)), 8 / 3)


@given(ragged(1), st.sampled_from([1e-2, 1.0, 1e3]))
def test_statistics_against_the_twins(batch: list[twins.Rows], scale: float) -> None:
    rows = [[scale * x for x in row] for row in batch[0]]
    (x,), mask = to_padded([rows])
    xs = twins.every(rows)
    assert_near(masked_mean(x, mask), twins.mean(xs), 1e-9 * scale)
    assert_near(masked_variance(x, mask), twins.variance(xs), 1e-9 * scale**2)
    spread = (twins.variance(xs) + 1e-8) ** 0.5
    assert_near(masked_whiten(x, mask)[mask], [(v - twins.mean(xs)) / spread for v in xs], 1e-6)


@given(ragged(1))
def test_whitened_has_mean_0_and_deviation_1(batch: list[twins.Rows]) -> None:
    (x,), mask = to_padded(batch)
    white = masked_whiten(x, mask)
    real = white[mask].tolist()
    assert_near(twins.mean(real), 0.0, 1e-7)
    if twins.variance(twins.every(batch[0])) > 1e-3:
        assert_near(twins.variance(real), 1.0, 1e-4)
    assert white[~mask].tolist() == [0.0] * int((~mask).sum())


@pytest.mark.parametrize("function", [masked_mean, masked_variance, masked_whiten])
def test_refusals(function) -> None:  # type: ignore[no-untyped-def]
    mask = lengths_to_mask([2, 1], 3)
    with pytest.raises(ValueError, match=r"x \(2, 2\), mask \(2, 3\)"):
        function(torch.zeros(2, 2), mask)
    with pytest.raises(ValueError, match=r"x \(2, 1\), mask \(2, 3\)"):  # would broadcast
        function(torch.zeros(2, 1), mask)
    with pytest.raises(ValueError, match=r"mask \(2, 3\) has no real token in row 1"):
        function(torch.zeros(2, 3), lengths_to_mask([2, 0], 3))
    with pytest.raises(ValueError, match=r"x is NaN at \(1, 0\)"):
        function(torch.tensor([[0.0, 0.0, NAN], [NAN, 0.0, 0.0]]), mask)
    with pytest.raises(ValueError, match=r"mask must be a bool tensor.*torch\.int64"):
        function(torch.zeros(2, 3), mask.long())
    with pytest.raises(ValueError, match=r"mask must not be empty.*\(0, 3\)"):
        function(torch.zeros(0, 3), mask[:0])
