from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf.maths.kl import AdaptiveKL, FixedKL, k1, k2, k3
from rlhf.maths.masked import masked_mean
from tests.helpers import NAN, assert_near, float64, lengths_to_mask

# A policy and its reference over a vocabulary of five tokens, enumerated instead of sampled.
POLICY_LOGITS = float64([0.3, -1.2, 0.8, 0.0, -0.5])
REFERENCE = torch.log_softmax(float64([-0.4, 0.6, 0.1, 0.9, -1.0]), 0)
Estimator = Callable[[Tensor, Tensor], Tensor]


def test_values_by_hand() -> None:
    logprobs, ref_logprobs = float64([-1.0, -2.0, -3.0]), float64([-1.0, -2.5, -2.0])  # k1 = 0, 0.5, -1
    assert_near(k1(logprobs, ref_logprobs), [0.0, 0.5, -1.0])
    assert_near(k2(logprobs, ref_logprobs), [0.0, 0.125, 0.5])
    assert_near(k3(logprobs, ref_logprobs), [0.0, 0.106530659712633, 0.718281828459045])  # e^-.5 - .5;  e - 2


def test_k3_keeps_its_digits_near_zero() -> None:
    # k1²/2 - k1³/6 for k1 = 2^-13, exact in float32, where exp(-k1) - 1 + k1 keeps no digit of 7.45e-9.
    x = 2.0**-13
    assert_near(k3(torch.tensor([x]), torch.tensor([0.0])) / (x * x / 2 - x**3 / 6), [1.0], 2e-3)


def exact_kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum()


def expected(estimator: Estimator) -> Tensor:
    """The estimator's mean over the policy's own tokens."""
    policy = torch.log_softmax(POLICY_LOGITS, 0)
    return (policy.exp() * estimator(policy, REFERENCE)).sum()


def test_k1_and_k3_are_unbiased_and_k2_is_not() -> None:
    truth = exact_kl(torch.log_softmax(POLICY_LOGITS, 0), REFERENCE)
    assert_near(expected(k1), truth)
    assert_near(expected(k3), truth)
    assert abs(expected(k2).item() - truth.item()) > 0.01


def test_clamping_k1_at_0_overestimates_a_small_kl_many_times() -> None:
    policy = torch.log_softmax(REFERENCE + 0.1 * POLICY_LOGITS, 0)
    clamped = (policy.exp() * k1(policy, REFERENCE).clamp(min=0)).sum()
    assert clamped.item() > 5 * exact_kl(policy, REFERENCE).item() > 0


def gradient_as_loss(estimator: Estimator) -> Tensor:
    """Mean gradient of the estimator used as a loss on samples: the policy's probabilities weigh it, undifferentiated."""
    logits = POLICY_LOGITS.clone().requires_grad_()
    policy = torch.log_softmax(logits, 0)
    (policy.exp().detach() * estimator(policy, REFERENCE)).sum().backward()
    assert logits.grad is not None
    return logits.grad


def gradient_of_kl(forwards: bool) -> Tensor:
    logits = POLICY_LOGITS.clone().requires_grad_()
    policy = torch.log_softmax(logits, 0)
    (exact_kl(policy, REFERENCE) if forwards else exact_kl(REFERENCE, policy)).backward()
    assert logits.grad is not None
    return logits.grad


def test_as_losses_k1_does_nothing_k2_is_right_and_k3_goes_the_other_direction() -> None:
    assert_near(gradient_as_loss(k1), torch.zeros(5))
    assert_near(gradient_as_loss(k2), gradient_of_kl(forwards=True))
    assert_near(gradient_as_loss(k3), gradient_of_kl(forwards=False))
    assert (gradient_of_kl(forwards=True) - gradient_of_kl(forwards=False)).abs().max() > 0.05


@given(st.floats(-8, 8), st.floats(-8, 8))
def test_signs(logprob: float, ref_logprob: float) -> None:
    logprobs, ref_logprobs = float64([logprob]), float64([ref_logprob])
    assert_near(k1(logprobs, ref_logprobs), -k1(ref_logprobs, logprobs))
    assert k2(logprobs, ref_logprobs).item() >= 0
    assert k3(logprobs, ref_logprobs).item() >= 0


@pytest.mark.parametrize("estimator", [k1, k2, k3])
@pytest.mark.parametrize("garbage", [NAN, 1e30, -1e30, -1e9, math.inf, -math.inf])
def test_a_mask_applied_afterwards_leaves_no_gradient_on_padding(estimator: Estimator, garbage: float) -> None:
    mask = lengths_to_mask([2], 3)
    logprobs = torch.tensor([[-1.0, -2.0, garbage]], requires_grad=True)
    masked_mean(estimator(logprobs, torch.tensor([[-1.5, -1.5, -1.0]])), mask).backward()
    clean = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    masked_mean(estimator(clean, torch.tensor([[-1.5, -1.5]])), mask[:, :2]).backward()
    assert logprobs.grad is not None
    assert clean.grad is not None
    assert logprobs.grad.tolist() == [[*clean.grad[0].tolist(), 0.0]]


@pytest.mark.parametrize("estimator", [k1, k2, k3])
def test_shapes_and_dtypes(estimator: Estimator) -> None:
    with pytest.raises(ValueError, match=r"logprobs \(2, 3\), ref_logprobs \(2, 1\)"):
        estimator(torch.zeros(2, 3), torch.zeros(2, 1))
    assert estimator(float64([[0.5]]), float64([[0.0]])).dtype == torch.float64
    # -1.0078125 - -1.0 is 2^-7 in bfloat16 too, but its square over two is computed in float32
    narrow = estimator(torch.tensor([-1.0], dtype=torch.bfloat16), torch.tensor([-1.0078125], dtype=torch.bfloat16))
    assert narrow.dtype == torch.float32
    assert_near(narrow, estimator(float64([-1.0]), float64([-1.0078125])), 1e-8)


def test_fixed_stays() -> None:
    controller = FixedKL(0.1)
    controller.update(1000.0, 64)
    assert controller.kl_ctl == 0.1


@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        (6.0, 1.0),  # on target
        (6.6, 1.01),  # 10 % above: 1 + 0.1 * 100 / 1000
        (5.4, 0.99),
        (60.0, 1.02),  # far above: the error is cut to 0.2
        (0.0, 0.98),
        (-3.0, 0.98),  # a negative estimate is an estimate, cut like any other
    ],
)
def test_adaptive_by_hand(kl: float, factor: float) -> None:
    controller = AdaptiveKL(0.1, target=6.0, horizon=1000)
    controller.update(kl, 100)
    assert_near(controller.kl_ctl, 0.1 * factor)


def test_adaptive_compounds() -> None:
    controller = AdaptiveKL(0.2, 6.0, 1000)
    for _ in range(3):
        controller.update(100.0, 50)  # 1 + 0.2 * 50 / 1000 = 1.01 each time
    assert_near(controller.kl_ctl, 0.2 * 1.01**3)


def test_adaptive_needs_the_sum_over_a_response_and_not_its_mean_per_token() -> None:
    """A response of 30 tokens at 0.2 nats each stands at its target of 6 nats; the mean per token would ask for less."""
    per_token = [0.2] * 30
    right, wrong = AdaptiveKL(0.1, 6.0, 1000), AdaptiveKL(0.1, 6.0, 1000)
    right.update(sum(per_token), 100)
    wrong.update(sum(per_token) / 30, 100)
    assert_near(right.kl_ctl, 0.1)
    assert_near(wrong.kl_ctl, 0.098)


def test_state_survives() -> None:
    through, before = AdaptiveKL(0.1, 6.0, 1000), AdaptiveKL(0.1, 6.0, 1000)
    for controller in (through, before):
        controller.update(9.0, 100)
    resumed = AdaptiveKL(0.5, 6.0, 1000)
    resumed.load_state_dict(before.state_dict())
    for controller in (through, resumed):
        controller.update(2.0, 100)
    assert resumed.kl_ctl == through.kl_ctl != 0.1
    fixed = FixedKL(0.5)
    fixed.load_state_dict(FixedKL(0.1).state_dict())
    assert fixed.kl_ctl == 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedKL(-0.1), r"kl_ctl \(-0\.1\)"),
        (lambda: FixedKL(NAN), r"kl_ctl \(nan\)"),
        (lambda: FixedKL(math.inf), r"kl_ctl \(inf\)"),
        (lambda: AdaptiveKL(0.0, 6.0, 1000), r"kl_ctl \(0\.0\)"),
        (lambda: AdaptiveKL(0.1, 0.0, 1000), r"target \(0\.0\)"),
        (lambda: AdaptiveKL(0.1, NAN, 1000), r"target \(nan\)"),
        (lambda: AdaptiveKL(0.1, 6.0, 0), r"horizon \(0\)"),
        (lambda: AdaptiveKL(0.1, 6.0, 1000).update(NAN, 1), r"kl_per_response \(nan\)"),
        (lambda: AdaptiveKL(0.1, 6.0, 1000).update(math.inf, 1), r"kl_per_response \(inf\)"),
        (lambda: AdaptiveKL(0.1, 6.0, 1000).update(6.0, 0), r"responses \(0\)"),
        (lambda: AdaptiveKL(0.1, 6.0, 100).update(0.0, 500), r"responses \(500\) must be fewer than 5 x horizon \(100\)"),
        (lambda: FixedKL(0.1).load_state_dict({}), r"one entry, kl_ctl, not \[\]"),
        (lambda: AdaptiveKL(0.1, 6.0, 9).load_state_dict({"kl_ctl": NAN}), r"kl_ctl \(nan\)"),
        (lambda: AdaptiveKL(0.1, 6.0, 9).load_state_dict({"kl_ctl": 0.1, "step": 3}), r"\['kl_ctl', 'step'\]"),
    ],
)
def test_refusals(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
