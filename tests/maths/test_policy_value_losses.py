"""SFT, PPO's two losses, and the figures beside them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf.maths.losses import kl_loss, policy_loss, sft_loss, unclipped_policy_loss, value_loss
from tests.helpers import NAN, assert_near, float64, lengths_to_mask
from tests.maths import twins
from tests.maths.batches import ragged, to_padded

clips = st.sampled_from([0.05, 0.2, 0.5, 0.9])


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(loss, of)
    return slope


def test_sft_by_hand() -> None:
    logprobs = float64([[-1.0, -2.0, NAN], [-6.0, NAN, NAN]])
    assert_near(sft_loss(logprobs, lengths_to_mask([2, 1], 3)), 3.0)  # 9 nats over 3 tokens


def test_an_infinite_loss_is_shown_and_not_refused() -> None:
    """A token of probability 0 is the training loop's to find, with the step's number and rows at hand."""
    assert sft_loss(float64([[-math.inf, -1.0]]), lengths_to_mask([2])).item() == math.inf


@given(ragged(1, -10.0, 0.0))
def test_sft_against_the_twin(batch: list[twins.Rows]) -> None:
    (logprobs,), mask = to_padded(batch)
    assert_near(sft_loss(logprobs, mask), -twins.mean(twins.every(batch[0])))


def test_policy_by_hand() -> None:
    # clip_range 0.2. ratio 1.5, A 2: min(3, 2.4) = 2.4.  ratio 0.5, A 2: min(1, 1.6) = 1.
    # ratio 1.5, A -2: min(-3, -2.4) = -3.  ratio 0.5, A -2: min(-1, -1.6) = -1.6.  ratio 1.1, A 1: 1.1.
    logprobs = float64([[1.5, 0.5, 1.5, 0.5, 1.1]]).log()
    advantages = float64([[2.0, 2.0, -2.0, -2.0, 1.0]])
    loss = policy_loss(logprobs, torch.zeros(1, 5), advantages, lengths_to_mask([5]), 0.2)
    assert_near(loss, -(2.4 + 1.0 - 3.0 - 1.6 + 1.1) / 5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [  # d loss / d logprob = -A * ratio where the gradient flows
        (1.5, 2.0, 0.0),  # a gain already made
        (0.5, -2.0, 0.0),  # a loss already avoided
        (0.5, 2.0, -1.0),  # a repair: -2 * 0.5
        (1.5, -2.0, 3.0),  # a repair: 2 * 1.5
        (1.1, 2.0, -2.2),
        (0.9, -2.0, 1.8),
        (1.0, 0.0, 0.0),
    ],
)
def test_the_clip_caps_the_gain_and_never_the_repair(ratio: float, advantage: float, slope: float) -> None:
    logprobs = float64([[math.log(ratio)]]).requires_grad_()
    loss = policy_loss(logprobs, float64([[0.0]]), float64([[advantage]]), lengths_to_mask([1]), 0.2)
    assert_near(gradient(loss, logprobs), [[slope]])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("log_ratio", "advantage", "expected"),
    [(100.0, 1.0, -1.2), (-100.0, -1.0, 0.8), (100.0, 0.0, 0.0), (1e4, 2.0, -2.4), (-1e4, -2.0, 1.6)],
)
def test_a_huge_ratio_under_the_clip(dtype: torch.dtype, log_ratio: float, advantage: float, expected: float) -> None:
    """min() of it gives the right loss, and 0 * inf = NaN as its gradient."""
    logprobs = torch.tensor([[log_ratio]], dtype=dtype, requires_grad=True)
    zeros = torch.zeros(1, 1, dtype=dtype)
    loss = policy_loss(logprobs, zeros, zeros + advantage, lengths_to_mask([1]), 0.2)
    assert_near(loss, expected, 1e-6)
    assert gradient(loss, logprobs).tolist() == [[0.0]]


def test_a_vanishing_ratio_that_needs_repair_is_finite() -> None:
    logprobs = torch.tensor([[-100.0]], requires_grad=True)
    loss = policy_loss(logprobs, torch.zeros(1, 1), torch.ones(1, 1), lengths_to_mask([1]), 0.2)
    assert_near(loss, 0.0)
    assert_near(gradient(loss, logprobs), [[0.0]])


@given(ragged(3, -2.0, 2.0), clips)
def test_policy_against_the_twin(batch: list[twins.Rows], clip_range: float) -> None:
    (logprobs, old, advantages), mask = to_padded(batch)
    tokens = zip(*(twins.every(rows) for rows in batch), strict=True)
    expected = -twins.mean([twins.surrogate(p, q, a, clip_range) for p, q, a in tokens])
    assert_near(policy_loss(logprobs, old, advantages, mask, clip_range), expected, 1e-8)


@given(ragged(2))
def test_at_ratio_1_the_gradient_is_that_of_reinforce(batch: list[twins.Rows]) -> None:
    (logprobs, advantages), mask = to_padded(batch)
    logprobs.requires_grad_()
    loss = policy_loss(logprobs, logprobs.detach().clone(), advantages, mask, 0.2)
    tokens = int(mask.sum())
    assert_near(loss, -twins.mean(twins.every(batch[1])))
    expected = torch.where(mask, -advantages / tokens, torch.zeros_like(advantages))  # d/dlogp of -mean A log p
    assert_near(gradient(loss, logprobs), expected)


def test_what_sampled_and_what_judged_get_no_gradient() -> None:
    """Passing the learner's own log-probabilities as the old ones is REINFORCE, and not a loss without gradient."""
    logprobs = float64([[-1.0, -2.0]]).requires_grad_()
    advantages = float64([[1.0, -3.0]]).requires_grad_()
    loss = policy_loss(logprobs, logprobs, advantages, lengths_to_mask([2]), 0.2)
    assert_near(gradient(loss, logprobs), [[-0.5, 1.5]])
    assert policy_loss(logprobs.detach(), logprobs, advantages, lengths_to_mask([2]), 0.2).requires_grad is False


def test_what_every_action_has_in_common_teaches_nothing() -> None:
    """Four actions, enumerated: weights V(s) have expected gradient 0, weights Q(s, a) and Q - V the same one."""
    logits = float64([0.2, -0.5, 1.0, 0.0]).requires_grad_()
    action_values = float64([1.0, -2.0, 0.5, 3.0])

    def expected_gradient(weights: Tensor) -> Tensor:
        logprobs = torch.log_softmax(logits, 0)
        mask = torch.ones(1, 1, dtype=torch.bool)
        losses = [
            policy_loss(p.view(1, 1), p.view(1, 1), w.view(1, 1), mask, 0.2) for p, w in zip(logprobs, weights, strict=True)
        ]
        return gradient((logprobs.exp().detach() * torch.stack(losses)).sum(), logits)

    constant = torch.full((4,), 7.0, dtype=torch.float64)
    assert_near(expected_gradient(constant), torch.zeros(4))
    assert_near(expected_gradient(action_values - constant), expected_gradient(action_values))
    chances = torch.softmax(logits, 0)
    assert_near(expected_gradient(action_values), -gradient((chances * action_values).sum(), logits))  # of -E[Q]


def test_value_by_hand() -> None:
    # V 3, old 1, clip 0.5 -> 1.5. Target 0: max(9, 2.25) = 9. Target 4: max(1, 6.25) = 6.25. Halved and averaged: 3.8125.
    values, old, returns = float64([[3.0, 3.0, NAN]]), float64([[1.0, 1.0, NAN]]), float64([[0.0, 4.0, NAN]])
    mask = lengths_to_mask([2], 3)
    assert_near(value_loss(values, old, returns, mask, 0.5), (9 + 6.25) / 4)
    assert_near(value_loss(values, old, returns, mask, None), (9 + 1) / 4)


def test_value_gradient_stops_where_the_clipped_error_rules() -> None:
    values = float64([[3.0, 3.0, 1.2]]).requires_grad_()
    old, returns = float64([[1.0, 1.0, 1.0]]), float64([[0.0, 4.0, 0.0]])
    mask = lengths_to_mask([3])
    # moved away from target 0: V - R = 3. Moved too far towards target 4: clipped, 0. Within the clip: 1.2.
    assert_near(gradient(value_loss(values, old, returns, mask, 0.5), values), [[1.0, 0.0, 0.4]])
    assert_near(gradient(value_loss(values, old, returns, mask, None), values), [[1.0, -1 / 3, 0.4]])


@given(ragged(3), st.sampled_from([None, 0.1, 0.2, 3.0]))
def test_value_against_the_twin(batch: list[twins.Rows], value_clip: float | None) -> None:
    (values, old, returns), mask = to_padded(batch)
    tokens = zip(*(twins.every(rows) for rows in batch), strict=True)
    expected = twins.mean([twins.critic_error(v, o, r, value_clip) for v, o, r in tokens])
    assert_near(value_loss(values, old, returns, mask, value_clip), expected)


def test_the_critics_target_stands_still() -> None:
    values = float64([[1.0, 2.0]]).requires_grad_()
    loss = value_loss(values.detach(), values, values, lengths_to_mask([2]), 0.2)
    assert loss.requires_grad is False


@pytest.mark.parametrize("rows_per_micro_batch", [1, 2, 3, 8])
def test_micro_batches_with_a_common_normaliser_add_up_to_the_step(rows_per_micro_batch: int) -> None:
    """8 responses of unequal length, cut 8x1, 4x2, 3+3+2, 1x8: the same losses and the same gradients."""
    source = torch.Generator().manual_seed(0)
    mask = lengths_to_mask([1, 7, 3, 2, 7, 5, 1, 4])
    x, y, z = (torch.randn(mask.shape, generator=source, dtype=torch.float64) for _ in range(3))
    x.requires_grad_()
    losses = {
        "sft": lambda part, n: sft_loss(x[part], mask[part], normaliser=n),
        "policy": lambda part, n: policy_loss(x[part], y[part], z[part], mask[part], 0.2, normaliser=n),
        "unclipped policy": lambda part, n: unclipped_policy_loss(x[part], y[part], z[part], mask[part], normaliser=n),
        "kl": lambda part, n: kl_loss(x[part], y[part], mask[part], normaliser=n),
        "value": lambda part, n: value_loss(x[part], y[part], z[part], mask[part], 0.2, normaliser=n),
    }
    for loss in losses.values():
        whole = loss(slice(None), None)
        parts = [slice(i, i + rows_per_micro_batch) for i in range(0, 8, rows_per_micro_batch)]
        added = torch.stack([loss(part, 30) for part in parts]).sum()  # 1 + 7 + 3 + 2 + 7 + 5 + 1 + 4 tokens
        assert_near(added, whole, 1e-12)
        assert_near(gradient(added, x), gradient(whole, x), 1e-12)


@given(ragged(3, -2.0, 2.0))
def test_unclipped_against_the_definition(batch: list[twins.Rows]) -> None:
    (logprobs, old, advantages), mask = to_padded(batch)
    tokens = zip(*(twins.every(rows) for rows in batch), strict=True)
    expected = -twins.mean([a * math.exp(p - q) for p, q, a in tokens])
    assert_near(unclipped_policy_loss(logprobs, old, advantages, mask), expected, 1e-8)


@given(ragged(2))
def test_unclipped_at_ratio_1_the_gradient_is_that_of_reinforce(batch: list[twins.Rows]) -> None:
    (logprobs, advantages), mask = to_padded(batch)
    logprobs.requires_grad_()
    loss = unclipped_policy_loss(logprobs, logprobs, advantages, mask)  # as its own old one it gets no gradient
    expected = torch.where(mask, -advantages / int(mask.sum()), torch.zeros_like(advantages))
    assert_near(gradient(loss, logprobs), expected)


def test_without_a_clip_a_gain_has_no_end() -> None:
    logprobs = float64([[math.log(1.5)]]).requires_grad_()
    loss = unclipped_policy_loss(logprobs, float64([[0.0]]), float64([[2.0]]), lengths_to_mask([1]))
    assert_near(gradient(loss, logprobs), [[-3.0]])


@given(ragged(2))
def test_the_kl_as_a_loss_is_half_the_square(batch: list[twins.Rows]) -> None:
    (logprobs, ref), mask = to_padded(batch)
    tokens = list(zip(*(twins.every(rows) for rows in batch), strict=True))
    assert_near(kl_loss(logprobs, ref, mask), twins.mean([(p - q) ** 2 / 2 for p, q in tokens]))
    assert_near(kl_loss(logprobs, ref, mask, normaliser=10), math.fsum((p - q) ** 2 / 2 for p, q in tokens) / 10)


def test_the_reference_gets_no_gradient_from_the_kl() -> None:
    logprobs, ref = float64([[-1.0]]).requires_grad_(), float64([[-3.0]]).requires_grad_()
    loss = kl_loss(logprobs, ref, lengths_to_mask([1]))
    assert_near(gradient(loss, logprobs), [[2.0]])
    assert kl_loss(logprobs.detach(), ref, lengths_to_mask([1])).requires_grad is False


def test_refusals() -> None:
    x, mask = torch.zeros(2, 3), lengths_to_mask([3, 1])
    for clip_range in (0.0, 1.0, -0.2, 1.5, NAN):
        with pytest.raises(ValueError, match=r"clip_range \(.*must be in \(0\.0, 1\.0\)"):
            policy_loss(x, x, x, mask, clip_range)
    for value_clip in (0.0, -0.2, NAN):
        with pytest.raises(ValueError, match=r"value_clip \("):
            value_loss(x, x, x, mask, value_clip)
    for normaliser in (0.0, -3.0, NAN):
        with pytest.raises(ValueError, match=r"normaliser \("):
            sft_loss(x, mask, normaliser=normaliser)
