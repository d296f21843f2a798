"""The maths on narrow inputs, against the twins on the very numbers that these hold.

A bfloat16 number is an exact float; the maths computes with it in float32. So the tolerance is that of float32 sums of a few
dozen terms, and not that of bfloat16: nothing is rounded to 8 bits once it is in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf.maths import advantages, diagnostics, kl, losses, masked
from tests.helpers import assert_near
from tests.maths import twins
from tests.maths.batches import GARBAGE

NARROW = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=["bf16", "fp16", "fp32"])
TOLERANCE = 1e-5  # relative, of 24 terms to 2^-24 each, or of e^x with x of up to 60 to 2^-24
SCALES = st.sampled_from([2.0**-10, 1.0, 30.0])
CLIPS = st.sampled_from([0.05, 0.2, 0.5, 0.9])


@dataclass(frozen=True)
class Batch:
    """Where the real tokens of 1-4 responses stand, in 1-7 places, with gaps or without; and numbers for each of them."""

    mask: list[list[bool]]
    numbers: list[twins.Rows]


@st.composite
def batches(draw: st.DrawFn, tensors: int) -> Batch:
    """Numbers of any magnitude, negative ones and 0 among them."""
    width = draw(st.integers(1, 7))
    masks = st.lists(st.booleans(), min_size=width, max_size=width).filter(any)
    mask = draw(st.lists(masks, min_size=1, max_size=4))
    numbers = []
    for scale in [draw(SCALES) for _ in range(tensors)]:
        row = st.floats(-scale, scale, width=32)
        numbers.append([draw(st.lists(row, min_size=sum(places), max_size=sum(places))) for places in mask])
    return Batch(mask, numbers)


def narrowed(batch: Batch, dtype: torch.dtype) -> tuple[list[Tensor], Tensor, list[twins.Rows]]:
    """The numbers in a narrow dtype, garbage beside them; their mask; and what that dtype made of them, exactly."""
    mask = torch.tensor(batch.mask)
    tensors = []
    for rows in batch.numbers:
        tensor = torch.tensor([GARBAGE[i % len(GARBAGE)] for i in range(mask.numel())]).view(mask.shape).to(dtype)
        tensor[mask] = torch.tensor(twins.every(rows), dtype=torch.float64).to(dtype)
        tensors.append(tensor)
    return tensors, mask, [[row[here].double().tolist() for row, here in zip(x, mask, strict=True)] for x in tensors]


def assert_float32_near(actual: Tensor, expected: Any, size: float) -> None:
    """To TOLERANCE of `size`, the sum of the magnitudes that went in: what cancels leaves an error of what it was."""
    assert actual.dtype == torch.float32
    assert_near(actual / max(size, 1.0), torch.as_tensor(expected, dtype=torch.float64) / max(size, 1.0), TOLERANCE)


def real(x: Tensor, mask: Tensor) -> twins.Rows:
    assert x[~mask].eq(0).all()
    return [row[here].tolist() for row, here in zip(x, mask, strict=True)]


def tokens(rows: list[twins.Rows]) -> list[tuple[float, ...]]:
    return list(zip(*(twins.every(each) for each in rows), strict=True))


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(loss, of)
    return slope


@NARROW
@given(batch=batches(1))
def test_masked_statistics(dtype: torch.dtype, batch: Batch) -> None:
    (x,), mask, (rows,) = narrowed(batch, dtype)
    xs = twins.every(rows)
    largest = max(map(abs, xs))
    assert_float32_near(masked.masked_mean(x, mask), twins.mean(xs), largest)
    assert_float32_near(masked.masked_variance(x, mask), twins.variance(xs), largest**2)
    white = masked.masked_whiten(x, mask)
    if twins.variance(xs) > 1e-4 * largest**2:
        spread = (twins.variance(xs) + masked.VARIANCE_FLOOR) ** 0.5
        expected = [(v - twins.mean(xs)) / spread for v in xs]
        assert_float32_near(torch.tensor(twins.every(real(white, mask))), expected, 100.0)


ESTIMATORS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[float], float]]] = {
    "k1": (kl.k1, lambda x: x),
    "k2": (kl.k2, lambda x: x * x / 2),
    "k3": (kl.k3, lambda x: math.expm1(-x) + x),
}


@NARROW
@pytest.mark.parametrize("name", ESTIMATORS)
@given(batch=batches(2))
def test_estimators_of_kl(dtype: torch.dtype, name: str, batch: Batch) -> None:
    """Token by token; relative to the number itself, however large e^-k1 is."""
    (logprobs, ref), mask, rows = narrowed(batch, dtype)
    ours, twin = ESTIMATORS[name]
    values = ours(logprobs, ref)[mask]
    assert values.dtype == torch.float32
    for value, (p, q) in zip(values.tolist(), tokens(rows), strict=True):
        size = max(abs(twin(p - q)), abs(p - q), abs(p), abs(q), 1e-30)
        assert abs(value - twin(p - q)) <= TOLERANCE * size


@NARROW
@given(batch=batches(2), data=st.data(), kl_ctl=st.sampled_from([0.0, 0.1, 2.0]))
def test_token_rewards(dtype: torch.dtype, batch: Batch, data: st.DataObject, kl_ctl: float) -> None:
    (logprobs, ref), mask, (ps, qs) = narrowed(batch, dtype)
    scores = torch.tensor([data.draw(st.floats(-30, 30, width=16)) for _ in ps], dtype=dtype)
    paid = advantages.token_rewards(scores, logprobs, ref, mask, kl_ctl)
    assert paid.dtype == torch.float32
    for ours, score, p, q in zip(real(paid, mask), scores.double().tolist(), ps, qs, strict=True):
        assert_float32_near(torch.tensor(ours), twins.rewards(score, p, q, kl_ctl), 200.0)


@NARROW
@given(batch=batches(2), gamma=st.sampled_from([1.0, 0.9, 0.0]), lam=st.sampled_from([1.0, 0.95, 0.0]))
def test_advantages_and_returns(dtype: torch.dtype, batch: Batch, gamma: float, lam: float) -> None:
    (rewards, values), mask, (paid, known) = narrowed(batch, dtype)
    found, returns = (real(x, mask) for x in advantages.gae(rewards, values, mask, gamma, lam))
    one_step = real(advantages.one_step_returns(rewards, values, mask, gamma), mask)
    for ours, targets, nexts, r, v in zip(found, returns, one_step, paid, known, strict=True):
        expected, size = twins.gae(r, v, gamma, lam), sum(map(abs, r + v + v))
        assert_float32_near(torch.tensor(ours), expected, size)
        assert_float32_near(torch.tensor(targets), [a + x for a, x in zip(expected, v, strict=True)], size)
        deltas = twins.deltas(r, v, gamma)
        assert_float32_near(torch.tensor(nexts), [d + x for d, x in zip(deltas, v, strict=True)], size)


@NARROW
@given(batch=batches(3), clip_range=CLIPS, normaliser=st.sampled_from([None, 40]))
def test_policy_loss(dtype: torch.dtype, batch: Batch, clip_range: float, normaliser: int | None) -> None:
    """Log-ratios up to 60: what is not capped may be e^60, and is right to float32's digits of that."""
    (logprobs, old, weights), mask, rows = narrowed(batch, dtype)
    each = [twins.surrogate(p, q, a, clip_range) for p, q, a in tokens(rows)]
    count = normaliser or len(each)
    logprobs.requires_grad_()
    loss = losses.policy_loss(logprobs, old, weights, mask, clip_range, normaliser=normaliser)
    assert_float32_near(loss, -math.fsum(each) / count, math.fsum(map(abs, each)) / count)
    slopes = gradient(loss, logprobs)
    assert slopes[~mask].eq(0).all()
    for slope, (p, q, a) in zip(slopes[mask].double().tolist(), tokens(rows), strict=True):
        ratio = math.exp(p - q)
        edge = min(abs(ratio - 1 - clip_range), abs(ratio - 1 + clip_range))
        capped = ratio > 1 + clip_range if a >= 0 else ratio < 1 - clip_range
        if capped:
            assert edge < 1e-5 or slope == 0.0
        elif edge > 1e-5 and abs(a) * ratio / count < torch.finfo(dtype).max:
            expected = -a * ratio / count
            assert abs(slope - expected) <= max(1.01 * torch.finfo(dtype).eps, TOLERANCE) * abs(expected) + 1e-7


@NARROW
@given(batch=batches(3), value_clip=st.sampled_from([None, 0.1, 0.2, 3.0]), normaliser=st.sampled_from([None, 40]))
def test_value_loss(dtype: torch.dtype, batch: Batch, value_clip: float | None, normaliser: int | None) -> None:
    (values, old, returns), mask, rows = narrowed(batch, dtype)
    each = [twins.critic_error(v, o, r, value_clip) for v, o, r in tokens(rows)]
    count = normaliser or len(each)
    loss = losses.value_loss(values, old, returns, mask, value_clip, normaliser=normaliser)
    assert_float32_near(loss, math.fsum(each) / count, (3 * max(abs(x) for row in tokens(rows) for x in row)) ** 2)


@NARROW
@given(batch=batches(2))
def test_losses_of_one_ratio(dtype: torch.dtype, batch: Batch) -> None:
    """The losses without a clip, and the figures of an update, where no ratio leaves float32."""
    (logprobs, old), mask, rows = narrowed(batch, dtype)
    pairs = tokens(rows)
    assert_float32_near(losses.sft_loss(logprobs, mask), -twins.mean([p for p, _ in pairs]), 30.0)
    assert_float32_near(losses.kl_loss(logprobs, old, mask), twins.mean([(p - q) ** 2 / 2 for p, q in pairs]), 1800.0)
    gains = [p * math.exp(p - q) for p, q in pairs]
    loss = losses.unclipped_policy_loss(logprobs, old, logprobs, mask)
    assert_float32_near(loss, -twins.mean(gains), twins.mean([abs(x) for x in gains]))
    divergences = [math.expm1(p - q) - (p - q) for p, q in pairs]
    assert_float32_near(diagnostics.approximate_kl(logprobs, old, mask), twins.mean(divergences), twins.mean(divergences))
    if all(abs(abs(p - q) - math.log1p(0.2)) > 1e-5 and abs(p - q - math.log1p(-0.2)) > 1e-5 for p, q in pairs):
        outside = twins.mean([float(not 0.8 < math.exp(p - q) < 1.2) for p, q in pairs])
        assert_float32_near(diagnostics.clip_fraction(logprobs, old, mask, 0.2), outside, 1.0)


@NARROW
@given(
    rows=st.lists(st.tuples(*[st.floats(-60, 60, width=16)] * 4), min_size=1, max_size=5),
    beta=st.sampled_from([0.05, 0.3]),
    label_smoothing=st.sampled_from([0.0, 0.2]),
)
def test_losses_of_pairs(
    dtype: torch.dtype, rows: list[tuple[float, float, float, float]], beta: float, label_smoothing: float
) -> None:
    columns = [torch.tensor(column, dtype=dtype) for column in zip(*rows, strict=True)]
    margins = [beta * (c - rc - (r - rr)) for c, r, rc, rr in zip(*(x.double().tolist() for x in columns), strict=True)]
    right, wrong = (twins.mean([twins.nats_of_win(sign * m) for m in margins]) for sign in (1, -1))
    expected = (1 - label_smoothing) * right + label_smoothing * wrong
    assert_float32_near(losses.dpo_loss(*columns, beta, label_smoothing), expected, 10.0)
    chosen, rejected = (x.double().tolist() for x in columns[:2])
    won = twins.mean([twins.nats_of_win(c - r) for c, r in zip(chosen, rejected, strict=True)])
    assert_float32_near(losses.reward_model_loss(*columns[:2]), won, 10.0)
    ranked = losses.ranking_loss(torch.stack(columns[:2], 1), torch.tensor([[0, 1]] * len(rows)))
    assert_float32_near(ranked, won, 10.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e4])
def test_a_ratio_of_e_to_100_beside_padding_and_ordinary_tokens(dtype: torch.dtype, garbage: float) -> None:
    """Its gain is capped: the loss is finite and its gradient 0, and its neighbour learns as if alone."""
    logprobs = torch.tensor([[100.0, -1.0, garbage], [-1.0, garbage, garbage]], dtype=dtype, requires_grad=True)
    old = torch.tensor([[0.0, -1.0, garbage], [-1.0, garbage, garbage]], dtype=dtype)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    loss = losses.policy_loss(logprobs, old, torch.ones_like(old), mask, 0.2)
    assert_near(loss, -(1.2 + 1.0 + 1.0) / 3, 1e-6)
    expected = torch.tensor([[0.0, -1 / 3, 0.0], [-1 / 3, 0.0, 0.0]]).to(dtype)
    assert_near(gradient(loss, logprobs), expected, 1e-6)
