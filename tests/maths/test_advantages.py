from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf.maths.advantages import gae, grpo, one_step_returns, rloo, token_rewards
from tests.helpers import NAN, assert_near, float64, lengths_to_mask
from tests.maths import twins
from tests.maths.batches import numbers, ragged, to_padded

unit = st.floats(0.0, 1.0)


def test_rewards_by_hand() -> None:
    # k1 is 0.5, -1 (second row: 2, 0, -0.5); kl_ctl 0.1. The score is on the last real token, not on the padding after it.
    logprobs = float64([[-1.0, -2.0, NAN], [-1.0, -1.0, -1.0]])
    ref_logprobs = float64([[-1.5, -1.0, NAN], [-3.0, -1.0, -0.5]])
    rewards = token_rewards(float64([3.0, -2.0]), logprobs, ref_logprobs, lengths_to_mask([2, 3]), 0.1)
    assert_near(rewards, [[-0.05, 0.1 + 3.0, 0.0], [-0.2, 0.0, 0.05 - 2.0]])


def test_a_negative_k1_is_paid_and_not_clamped() -> None:
    rewards = token_rewards(float64([0.0]), float64([[-2.0, -1.0]]), float64([[-1.0, -1.0]]), lengths_to_mask([2]), 0.5)
    assert_near(rewards, [[0.5, 0.0]])


def test_a_response_that_fills_its_buffer_is_paid_at_its_end() -> None:
    rewards = token_rewards(float64([1.0, 1.0]), torch.zeros(2, 2), torch.zeros(2, 2), lengths_to_mask([2, 1]), 0.1)
    assert_near(rewards, [[0.0, 1.0], [1.0, 0.0]])


@given(ragged(2), st.data(), st.floats(0.0, 2.0))
def test_rewards_against_the_twin_and_their_sum(batch: list[twins.Rows], data: st.DataObject, kl_ctl: float) -> None:
    scores = [data.draw(st.floats(-3, 3)) for _ in batch[0]]
    (logprobs, ref_logprobs), mask = to_padded(batch)
    rewards = token_rewards(float64(scores), logprobs, ref_logprobs, mask, kl_ctl)
    for i, (p, q) in enumerate(zip(*batch, strict=True)):
        assert_near(rewards[i, : len(p)], twins.rewards(scores[i], p, q, kl_ctl))
        assert_near(rewards[i].sum(), scores[i] - kl_ctl * (sum(p) - sum(q)))
    assert rewards[~mask].eq(0).all()


@given(ragged(1))
def test_at_the_reference_only_the_score_is_paid(batch: list[twins.Rows]) -> None:
    (logprobs,), mask = to_padded(batch)
    rewards = token_rewards(torch.ones(len(mask), dtype=torch.float64), logprobs, logprobs.clone(), mask, 0.1)
    assert rewards.sum(1).tolist() == [1.0] * len(mask)
    assert int(rewards.count_nonzero()) == len(mask)


def test_gae_by_hand() -> None:
    # gamma 0.5, lam 0.5. Row 1: deltas 1 + .5*2 - 1 = 1, 2 + .5*3 - 2 = 1.5, 3 - 3 = 0;
    # A_3 = 0, A_2 = 1.5, A_1 = 1 + .25 * 1.5 = 1.375. Row 2 has one token: 4 - 1 = 3.
    rewards = float64([[1.0, 2.0, 3.0], [4.0, NAN, NAN]])
    values = float64([[1.0, 2.0, 3.0], [1.0, NAN, NAN]])
    advantages, returns = gae(rewards, values, lengths_to_mask([3, 1]), 0.5, 0.5)
    assert_near(advantages, [[1.375, 1.5, 0.0], [3.0, 0.0, 0.0]])
    assert_near(returns, [[2.375, 3.5, 3.0], [4.0, 0.0, 0.0]])


def test_the_score_is_discounted_from_the_end_token_and_not_from_the_padding() -> None:
    # lam 0.5: with the score on token 2 of 2, A_1 = 0.5 * 1. Had it been on the padding, A_1 would be 0.25 and A_2 0.5.
    rewards = float64([[0.0, 1.0, 0.0]])
    assert_near(gae(rewards, torch.zeros(1, 3), lengths_to_mask([2], 3), 1.0, 0.5)[0], [[0.5, 1.0, 0.0]])


@given(ragged(2), unit, unit)
def test_gae_against_the_double_sum(batch: list[twins.Rows], gamma: float, lam: float) -> None:
    (rewards, values), mask = to_padded(batch)
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for i, (r, v) in enumerate(zip(*batch, strict=True)):
        expected = twins.gae(r, v, gamma, lam)
        assert_near(advantages[i, : len(r)], expected)
        assert_near(returns[i, : len(r)], [a + b for a, b in zip(expected, v, strict=True)])
    assert advantages[~mask].eq(0).all()
    assert returns[~mask].eq(0).all()


@given(ragged(2))
def test_undiscounted_advantage_is_the_rest_of_the_reward_less_the_value(batch: list[twins.Rows]) -> None:
    (rewards, values), mask = to_padded(batch)
    advantages, returns = gae(rewards, values, mask, 1.0, 1.0)
    for i, (r, v) in enumerate(zip(*batch, strict=True)):
        assert_near(advantages[i, : len(r)], [sum(r[t:]) - v[t] for t in range(len(r))])
        assert_near(returns[i, : len(r)], [sum(r[t:]) for t in range(len(r))])


@given(ragged(2), unit)
def test_lam_0_is_the_one_step_advantage(batch: list[twins.Rows], gamma: float) -> None:
    (rewards, values), mask = to_padded(batch)
    advantages, returns = gae(rewards, values, mask, gamma, 0.0)
    for i, (r, v) in enumerate(zip(*batch, strict=True)):
        assert_near(advantages[i, : len(r)], twins.deltas(r, v, gamma))
    assert_near(one_step_returns(rewards, values, mask, gamma), returns)


def test_one_step_returns_by_hand() -> None:
    rewards, values = float64([[1.0, 2.0, NAN]]), float64([[10.0, 20.0, NAN]])
    assert_near(one_step_returns(rewards, values, lengths_to_mask([2], 3), 0.5), [[11.0, 2.0, 0.0]])


def test_a_buffer_of_one_token() -> None:
    rewards, values, mask = float64([[3.0], [1.0]]), float64([[1.0], [4.0]]), lengths_to_mask([1, 1])
    advantages, returns = gae(rewards, values, mask, 0.5, 0.5)
    assert_near(advantages, [[2.0], [-3.0]])
    assert_near(returns, rewards)
    assert_near(one_step_returns(rewards, values, mask, 0.5), rewards)


def test_one_step_returns_stand_still() -> None:
    values = float64([[1.0, 2.0]]).requires_grad_()
    assert not one_step_returns(float64([[1.0, 1.0]]), values, lengths_to_mask([2]), 0.9).requires_grad


def test_the_successor_of_a_token_is_the_next_real_one() -> None:
    """A hole in the mask (a turn that the policy did not write) changes nothing on either side of it."""
    holed = torch.tensor([[True, False, True, False]])
    rewards, values = float64([[1.0, NAN, 2.0, NAN]]), float64([[3.0, NAN, 5.0, NAN]])
    dense = gae(rewards[:, ::2], values[:, ::2], lengths_to_mask([2]), 0.9, 0.8)
    for spread, tight in zip(gae(rewards, values, holed, 0.9, 0.8), dense, strict=True):
        assert_near(spread[:, ::2], tight)
        assert_near(spread[:, 1::2], [[0.0, 0.0]])
    assert_near(one_step_returns(rewards, values, holed, 0.9), [[1.0 + 0.9 * 5.0, 0.0, 2.0, 0.0]])
    paid = token_rewards(float64([7.0]), torch.zeros(1, 4), torch.zeros(1, 4), holed, 0.1)
    assert_near(paid, [[0.0, 0.0, 7.0, 0.0]])


def test_refusals() -> None:
    zeros, mask = torch.zeros(2, 3), lengths_to_mask([3, 1])
    with pytest.raises(ValueError, match=r"scores \(3,\) must be \(B,\).*logprobs \(2, 3\)"):
        token_rewards(torch.zeros(3), zeros, zeros, mask, 0.1)
    with pytest.raises(ValueError, match=r"scores \(2, 1\) must be \(B,\)"):
        token_rewards(torch.zeros(2, 1), zeros, zeros, mask, 0.1)
    with pytest.raises(ValueError, match=r"scores is NaN at \(1,\)"):
        token_rewards(torch.tensor([0.0, NAN]), zeros, zeros, mask, 0.1)
    with pytest.raises(ValueError, match=r"kl_ctl \(-0\.1\)"):
        token_rewards(torch.zeros(2), zeros, zeros, mask, -0.1)
    with pytest.raises(ValueError, match=r"logprobs must be \(B, R\) and not empty, not \(3,\)"):
        token_rewards(torch.zeros(3), zeros[0], zeros[0], mask[0], 0.1)
    with pytest.raises(ValueError, match=r"rewards must be \(B, R\) and not empty, not \(3,\)"):
        gae(zeros[0], zeros[0], mask[0], 1.0, 0.95)
    for gamma in (-0.1, 1.1, NAN):
        with pytest.raises(ValueError, match=r"gamma \("):
            gae(zeros, zeros, mask, gamma, 0.95)
        with pytest.raises(ValueError, match=r"gamma \("):
            one_step_returns(zeros, zeros, mask, gamma)
        with pytest.raises(ValueError, match=r"lam \("):
            gae(zeros, zeros, mask, 1.0, gamma)


@st.composite
def grouped(draw: st.DrawFn) -> tuple[twins.Rows, int]:
    """Rewards of 2 to 4 responses to each of 1 to 3 prompts."""
    siblings, prompts = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(1, 5), min_size=siblings * prompts, max_size=siblings * prompts))
    return [draw(st.lists(numbers(), min_size=n, max_size=n)) for n in lengths], siblings


@given(grouped())
def test_rloo_is_what_was_paid_less_the_mean_of_the_others(group: tuple[twins.Rows, int]) -> None:
    rows, siblings = group
    (rewards,), mask = to_padded([rows])
    advantages = rloo(rewards, mask, siblings)
    paid = [sum(row) for row in rows]
    for i, row in enumerate(rows):
        first = i - i % siblings
        others = [paid[j] for j in range(first, first + siblings) if j != i]
        assert_near(advantages[i, : len(row)], [paid[i] - twins.mean(others)] * len(row))
    assert advantages[~mask].eq(0).all()


@given(grouped())
def test_grpo_is_what_was_paid_in_deviations_of_its_prompt(group: tuple[twins.Rows, int]) -> None:
    rows, siblings = group
    (rewards,), mask = to_padded([rows])
    advantages = grpo(rewards, mask, siblings)
    paid = [sum(row) for row in rows]
    for i, row in enumerate(rows):
        group_paid = paid[i - i % siblings : i - i % siblings + siblings]
        deviation = math.sqrt(twins.variance(group_paid) + 1e-8)
        assert_near(advantages[i, : len(row)], [(paid[i] - twins.mean(group_paid)) / deviation] * len(row), 1e-7)


def test_siblings_by_hand() -> None:
    rewards, mask = float64([[1.0, 2.0], [1.0, NAN], [7.0, NAN], [7.0, NAN]]), lengths_to_mask([2, 1, 1, 1])
    assert_near(rloo(rewards, mask, 2), [[2.0, 2.0], [-2.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert_near(grpo(rewards, mask, 2), [[1.0, 1.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]], 1e-7)


@pytest.mark.parametrize("prompts", [*permutations(["small", "large", "alike", "large and alike"], 2)], ids=" beside ".join)
def test_whether_responses_are_paid_alike_is_a_matter_of_their_prompt(prompts: tuple[str, str]) -> None:
    """In float32, where the scores of the other prompt could make these look like rounding, or rounding like scores."""
    white = math.sqrt(1.5)  # of three neighbours, the outer two: 1 / sqrt(2/3)
    known = {
        "small": ([1.0, 2.0, 3.0], [-white, 0.0, white]),
        "large": ([3e7, 1e7, 2e7], [white, -white, 0.0]),
        "alike": ([0.1] * 3, [0.0] * 3),
        "large and alike": ([1000.1] * 3, [0.0] * 3),
    }
    paid, advantages = zip(*(known[prompt] for prompt in prompts), strict=True)
    found = grpo(torch.tensor(paid).view(-1, 1), lengths_to_mask([1] * 6), 3)
    assert_near(found, float64(advantages).view(-1, 1), 1e-6)


@pytest.mark.parametrize("estimator", [rloo, grpo])
@given(group=grouped(), bonus=st.floats(-3, 3))
def test_what_all_siblings_are_paid_alike_changes_nothing(
    estimator: Callable[[Tensor, Tensor, int], Tensor], group: tuple[twins.Rows, int], bonus: float
) -> None:
    """A baseline that depends on the prompt alone; so the responses to a prompt have advantages of sum 0."""
    rows, siblings = group
    (rewards,), mask = to_padded([rows])
    advantages = estimator(rewards, mask, siblings)
    paid_more = rewards.clone()
    paid_more[:, 0] += bonus
    assert_near(estimator(paid_more, mask, siblings), advantages, 1e-4)
    assert_near(advantages[:, 0].view(-1, siblings).sum(1), torch.zeros(len(rows) // siblings), 1e-7)


@pytest.mark.parametrize("estimator", [rloo, grpo])
@pytest.mark.parametrize("siblings", [1, 0, -2, 4])
def test_siblings_must_be_two_and_divide_the_responses(
    estimator: Callable[[Tensor, Tensor, int], Tensor], siblings: int
) -> None:
    with pytest.raises(ValueError, match=rf"responses_per_prompt \({siblings}\) .* \(6\)"):
        estimator(torch.zeros(6, 2), lengths_to_mask([2] * 6), siblings)
