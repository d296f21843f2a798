"""What every function with a mask promises: padding is inert, inputs stay as they were, nothing broadcasts, dtypes hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf.maths import advantages, diagnostics, losses, masked
from tests.helpers import NAN, assert_near, lengths_to_mask
from tests.maths.batches import GARBAGE

MASK = lengths_to_mask([3, 1, 2], 4)


@dataclass(frozen=True)
class Case:
    """A function as one of its per-token arguments (in order) and of the mask; its outputs as a tuple."""

    tokens: tuple[str, ...]
    function: Callable[..., tuple[Tensor, ...]]
    learns: tuple[int, ...] = (0,)  # which arguments get a gradient


CASES = {
    "masked_mean": Case(("x",), lambda x, m: (masked.masked_mean(x, m),)),
    "masked_variance": Case(("x",), lambda x, m: (masked.masked_variance(x, m),)),
    "masked_whiten": Case(("x",), lambda x, m: (masked.masked_whiten(x, m),)),
    "token_rewards": Case(
        ("logprobs", "ref_logprobs"),
        lambda x, y, m: (advantages.token_rewards(x.new_full((3,), 0.5), x, y, m, 0.1),),
        (0, 1),
    ),
    "gae": Case(("rewards", "values"), lambda x, y, m: advantages.gae(x, y, m, 0.9, 0.8), (0, 1)),
    "one_step_returns": Case(("rewards", "values"), lambda x, y, m: (advantages.one_step_returns(x, y, m, 0.9),)),
    "rloo": Case(("rewards",), lambda x, m: (advantages.rloo(x, m, 3),)),
    "grpo": Case(("rewards",), lambda x, m: (advantages.grpo(x, m, 3),)),
    "sft_loss": Case(("logprobs",), lambda x, m: (losses.sft_loss(x, m),)),
    "sft_loss of a step": Case(("logprobs",), lambda x, m: (losses.sft_loss(x, m, normaliser=99),)),
    "policy_loss": Case(
        ("logprobs", "old_logprobs", "advantages"), lambda x, y, z, m: (losses.policy_loss(x, y, z, m, 0.2),)
    ),
    "unclipped_policy_loss": Case(
        ("logprobs", "old_logprobs", "advantages"), lambda x, y, z, m: (losses.unclipped_policy_loss(x, y, z, m),)
    ),
    "kl_loss": Case(("logprobs", "ref_logprobs"), lambda x, y, m: (losses.kl_loss(x, y, m),)),
    "value_loss": Case(("values", "old_values", "returns"), lambda x, y, z, m: (losses.value_loss(x, y, z, m, 0.2),)),
    "value_loss unclipped": Case(
        ("values", "old_values", "returns"), lambda x, y, z, m: (losses.value_loss(x, y, z, m, None),)
    ),
    "clip_fraction": Case(("logprobs", "old_logprobs"), lambda x, y, m: (diagnostics.clip_fraction(x, y, m, 0.2),), ()),
    "ratio_mean_and_peak": Case(
        ("logprobs", "old_logprobs"), lambda x, y, m: diagnostics.ratio_mean_and_peak(x, y, m), (0, 1)
    ),
    "approximate_kl": Case(("logprobs", "old_logprobs"), lambda x, y, m: (diagnostics.approximate_kl(x, y, m),), (0, 1)),
    "explained_variance": Case(("values", "returns"), lambda x, y, m: (diagnostics.explained_variance(x, y, m),), (0, 1)),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def inputs(case: Case, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(MASK.shape, generator=source, dtype=torch.float64).to(dtype) for _ in case.tokens]


def outputs_and_gradients(case: Case, tensors: list[Tensor]) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    results = case.function(*leaves, MASK)
    learning = [leaves[i] for i in case.learns]
    if not learning:
        return results, []
    total = torch.stack([(result * result).sum() + result.sum() for result in results]).sum()
    return results, list(torch.autograd.grad(total, learning))


@every_case
@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_padding_is_inert_forwards_and_backwards(case: Case, garbage: float, dtype: torch.dtype) -> None:
    clean = [tensor.masked_fill(~MASK, 0.0) for tensor in inputs(case, dtype)]
    dirty = [tensor.masked_fill(~MASK, garbage) for tensor in clean]
    (results, gradients), (expected, expected_gradients) = (
        outputs_and_gradients(case, dirty),
        outputs_and_gradients(case, clean),
    )
    for actual, wanted in zip((*results, *gradients), (*expected, *expected_gradients), strict=True):
        assert torch.equal(actual, wanted)
        assert actual.isfinite().all()
    for gradient in gradients:
        assert gradient[~MASK].eq(0).all()
        assert gradient[MASK].ne(0).any()
    for result in results:
        assert result.dim() == 0 or result[~MASK].eq(0).all()


@every_case
def test_more_padding_changes_nothing(case: Case) -> None:
    tensors = inputs(case)
    padded = [torch.nn.functional.pad(tensor, (0, 5), value=NAN) for tensor in tensors]
    wide = case.function(*padded, torch.nn.functional.pad(MASK, (0, 5), value=False))
    for result, wanted in zip(wide, case.function(*tensors, MASK), strict=True):
        assert_near(result[..., :4] if result.dim() else result, wanted, 1e-12)


@every_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_inputs_stay_as_they_were(case: Case, dtype: torch.dtype) -> None:
    tensors = [tensor.masked_fill(~MASK, NAN) for tensor in inputs(case, dtype)]
    before, mask = [tensor.clone() for tensor in tensors], MASK.clone()
    for result in case.function(*tensors, mask):
        result.mul_(0.0).add_(7.0)  # nor is what comes back a view of what went in
    assert torch.equal(mask, MASK)
    for tensor, was in zip(tensors, before, strict=True):
        assert torch.equal(tensor.nan_to_num(nan=1e3), was.nan_to_num(nan=1e3))


@every_case
def test_dtypes(case: Case) -> None:
    for dtype, wanted in [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ]:
        narrow = inputs(case, dtype)
        results = case.function(*narrow, MASK)
        exact = case.function(*[tensor.double() for tensor in narrow], MASK)
        for result, reference in zip(results, exact, strict=True):
            assert result.dtype == wanted
            assert_near(result, reference, 1e-5)


@every_case
def test_every_argument_must_have_the_masks_shape(case: Case) -> None:
    for i, name in enumerate(case.tokens):
        for shape in [(3, 5), (3, 1), (1, 4), (4,), (1, 3, 4)]:
            tensors = inputs(case)
            tensors[i] = torch.zeros(shape, dtype=torch.float64)
            with pytest.raises(ValueError, match=rf"\b{name} .*{shape}".replace("(", r"\(").replace(")", r"\)")):
                case.function(*tensors, MASK)


@every_case
def test_nan_in_a_real_position_is_named(case: Case) -> None:
    for i, name in enumerate(case.tokens):
        tensors = inputs(case)
        tensors[i][2, 1] = NAN
        with pytest.raises(ValueError, match=rf"^{name} is NaN at \(2, 1\)$"):
            case.function(*tensors, MASK)


@every_case
def test_bad_masks_are_refused(case: Case) -> None:
    with pytest.raises(ValueError, match=r"mask \(3, 4\) has no real token in row 1"):
        case.function(*inputs(case), MASK & torch.tensor([[True], [False], [True]]))
    with pytest.raises(ValueError, match=r"mask must be a bool tensor"):
        case.function(*inputs(case), MASK.float())


@every_case
@given(seed=st.integers(0, 10**6), order=st.permutations(range(3)))
def test_the_order_of_the_responses_does_not_matter(case: Case, seed: int, order: list[int]) -> None:
    tensors = inputs(case, seed=seed)
    shuffled = case.function(*[tensor[order] for tensor in tensors], MASK[order])
    for result, wanted in zip(shuffled, case.function(*tensors, MASK), strict=True):
        assert_near(result, wanted[order] if wanted.dim() else wanted, 1e-9)


@every_case
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the maths ran on the CPU only")
def test_the_same_on_a_gpu(case: Case) -> None:
    tensors = [tensor.masked_fill(~MASK, NAN) for tensor in inputs(case)]
    results = case.function(*[tensor.cuda() for tensor in tensors], MASK.cuda())
    for result, wanted in zip(results, case.function(*tensors, MASK), strict=True):
        assert result.is_cuda
        assert_near(result, wanted, 1e-12)


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1.0, 1e6])
@every_case
def test_any_magnitude_is_finite(case: Case, scale: float) -> None:
    """But for a ratio that needs repair, or is itself what is measured: e^1e6 is inf, and honestly so."""
    if case in [CASES[name] for name in ("policy_loss", "unclipped_policy_loss", "approximate_kl", "ratio_mean_and_peak")]:
        scale = min(scale, 10.0)
    for result in case.function(*[scale * tensor for tensor in inputs(case, torch.float32)], MASK):
        assert result.isfinite().all()
