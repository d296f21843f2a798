"""Reward model, ranking and DPO losses, and the closed form that ties DPO to PPO."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf.maths.advantages import token_rewards
from rlhf.maths.losses import dpo_hinge_loss, dpo_loss, ipo_loss, ranking_loss, reward_model_loss
from tests.helpers import NAN, assert_near, float64
from tests.maths import twins
from tests.maths.batches import numbers

LN_2 = math.log(2)
pairs = st.lists(st.tuples(numbers(), numbers()), min_size=1, max_size=5)


def test_reward_model_by_hand() -> None:
    # sigmoid(log 3) = 3/4, sigmoid(-log 3) = 1/4
    chosen, rejected = float64([math.log(3), 0.0]), float64([0.0, math.log(3)])
    assert_near(reward_model_loss(chosen, rejected), (math.log(4 / 3) + math.log(4)) / 2)


def test_a_margin_has_to_be_won_first() -> None:
    chosen, rejected = float64([2.0, 1.0]), float64([0.0, 0.0])
    assert_near(reward_model_loss(chosen, rejected, 2.0), (LN_2 + twins.nats_of_win(-1.0)) / 2)
    assert_near(reward_model_loss(chosen, rejected, float64([2.0, 1.0])), LN_2)


def test_reward_model_at_a_zero_head_is_ln_2() -> None:
    assert_near(reward_model_loss(torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)), LN_2)


def test_reward_model_gradient_by_hand() -> None:
    # d/dx -log sigmoid(x) = -sigmoid(-x) = -1/4 at x = log 3
    chosen, rejected = float64([math.log(3)]).requires_grad_(), float64([0.0]).requires_grad_()
    reward_model_loss(chosen, rejected).backward()
    assert_near(chosen.grad, [-0.25])
    assert_near(rejected.grad, [0.25])


@pytest.mark.parametrize(("difference", "expected"), [(1e4, 0.0), (-1e4, 1e4), (100.0, 0.0), (-100.0, 100.0)])
def test_far_apart_is_finite(difference: float, expected: float) -> None:
    chosen = torch.tensor([difference], requires_grad=True)
    loss = reward_model_loss(chosen, torch.zeros(1))
    loss.backward()
    assert_near(loss, expected, 1e-6)
    assert_near(chosen.grad, [0.0 if difference > 0 else -1.0], 1e-6)


@given(pairs, st.floats(-2, 2))
def test_reward_model_against_the_twin(batch: list[tuple[float, float]], margin: float) -> None:
    chosen, rejected = (float64(list(side)) for side in zip(*batch, strict=True))
    expected = twins.mean([twins.nats_of_win(better - worse - margin) for better, worse in batch])
    assert_near(reward_model_loss(chosen, rejected, margin), expected)
    margins = torch.full_like(chosen, margin)
    assert_near(reward_model_loss(chosen, rejected, margins), expected)


def test_ranking_by_hand() -> None:
    # scores 1, 0, 3 ranked third, second, first: the pairs (3, 0), (3, 1), (0, 1) have differences 3, 2, -1
    expected = (twins.nats_of_win(3.0) + twins.nats_of_win(2.0) + twins.nats_of_win(-1.0)) / 3
    assert_near(ranking_loss(float64([[1.0, 0.0, 3.0]]), torch.tensor([[3, 2, 1]])), expected)


def test_ties_carry_no_pair_and_do_not_count() -> None:
    scores = float64([[5.0, 2.0, 1.0]])
    two_pairs = (twins.nats_of_win(4.0) + twins.nats_of_win(1.0)) / 2
    assert_near(ranking_loss(scores, torch.tensor([[1, 1, 2]])), two_pairs)


def test_a_prompt_of_ties_only_is_0_and_counts_as_a_prompt() -> None:
    scores = float64([[5.0, 2.0], [4.0, 3.0]]).requires_grad_()
    loss = ranking_loss(scores, torch.tensor([[1, 1], [1, 2]]))
    loss.backward()
    assert_near(loss, twins.nats_of_win(1.0) / 2)
    assert scores.grad is not None
    assert scores.grad[0].tolist() == [0.0, 0.0]


def test_a_prompt_weighs_the_same_however_many_pairs_it_has() -> None:
    scores = float64([[0.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    ranks = torch.tensor([[1, 2, 3], [2, 2, 1]])
    assert_near(ranking_loss(scores, ranks), (LN_2 + twins.nats_of_win(9.0)) / 2)


@given(pairs)
def test_two_responses_are_a_pair(batch: list[tuple[float, float]]) -> None:
    chosen, rejected = (float64(list(side)) for side in zip(*batch, strict=True))
    ranks = torch.tensor([[1, 2]]).repeat(len(batch), 1)
    assert_near(ranking_loss(torch.stack([chosen, rejected], 1), ranks), reward_model_loss(chosen, rejected))


@st.composite
def rankings(draw: st.DrawFn) -> tuple[list[list[float]], list[list[int]]]:
    prompts, width = draw(st.integers(1, 3)), draw(st.integers(2, 5))
    scores = [draw(st.lists(numbers(), min_size=width, max_size=width)) for _ in range(prompts)]
    ranks = [draw(st.lists(st.integers(-2, 4), min_size=width, max_size=width)) for _ in range(prompts)]
    return scores, ranks


@given(rankings())
def test_ranking_against_the_twin_and_only_the_order_counts(batch: tuple[list[list[float]], list[list[int]]]) -> None:
    scores, ranks = batch
    loss = ranking_loss(float64(scores), torch.tensor(ranks))
    assert_near(loss, twins.mean([twins.ranking(s, r) for s, r in zip(scores, ranks, strict=True)]))
    assert_near(ranking_loss(float64(scores), 10.0 * torch.tensor(ranks) - 3.5), loss)


def test_the_order_of_the_responses_does_not_matter() -> None:
    scores, ranks = float64([[0.3, -1.0, 2.0, 0.9]]), torch.tensor([[2, 1, 1, 3]])
    every = [ranking_loss(scores[:, list(order)], ranks[:, list(order)]) for order in permutations(range(4))]
    assert_near(torch.stack(every), every[0].repeat(24))


def test_dpo_by_hand() -> None:
    # implicit rewards 0.5 * (-1 - -3) = 1 and 0.5 * (-5 - -4) = -0.5: margin 1.5
    arguments = [float64([x]) for x in (-1.0, -5.0, -3.0, -4.0)]
    right, wrong = twins.nats_of_win(1.5), twins.nats_of_win(-1.5)
    assert_near(dpo_loss(*arguments, 0.5), right)
    assert_near(dpo_loss(*arguments, 0.5, 0.1), 0.9 * right + 0.1 * wrong)


@given(pairs, st.floats(0.01, 5.0), st.floats(0.0, 0.5))
def test_dpo_at_the_reference_is_ln_2(batch: list[tuple[float, float]], beta: float, label_smoothing: float) -> None:
    chosen, rejected = (float64(list(side)) for side in zip(*batch, strict=True))
    assert_near(dpo_loss(chosen, rejected, chosen.clone(), rejected.clone(), beta, label_smoothing), LN_2)


def test_dpo_gradient_is_beta_times_the_chance_of_being_wrong() -> None:
    """-beta * sigmoid(-margin) on the chosen side, plus that on the rejected one, and none on the reference."""
    chosen, rejected, ref_chosen, ref_rejected = (float64([x]).requires_grad_() for x in (-1.0, -5.0, -3.0, -4.0))
    dpo_loss(chosen, rejected, ref_chosen, ref_rejected, 0.5).backward()
    assert_near(chosen.grad, [-0.5 * twins.sigmoid(-1.5)])
    assert_near(rejected.grad, [0.5 * twins.sigmoid(-1.5)])
    assert ref_chosen.grad is None
    assert ref_rejected.grad is None


@given(st.lists(st.tuples(*[numbers(-50, 0)] * 4), min_size=1, max_size=4), st.floats(0.01, 2.0), st.floats(0.0, 0.5))
def test_dpo_against_the_twin(batch: list[tuple[float, ...]], beta: float, smoothing: float) -> None:
    margins = [
        beta * ((chosen - ref_chosen) - (rejected - ref_rejected)) for chosen, rejected, ref_chosen, ref_rejected in batch
    ]
    expected = twins.mean([(1 - smoothing) * twins.nats_of_win(m) + smoothing * twins.nats_of_win(-m) for m in margins])
    assert_near(dpo_loss(*(float64(list(side)) for side in zip(*batch, strict=True)), beta, smoothing), expected, 1e-8)


# Five whole responses, enumerated: the optimum of eq. 15 is known.
BETA = 0.3
REWARD = float64([0.5, -1.0, 0.2, 1.1, 0.0])
REFERENCE = torch.log_softmax(float64([0.1, 0.9, -0.7, -0.2, 0.4]), 0)
OPTIMUM = torch.log_softmax(REFERENCE + REWARD / BETA, 0)


def dpo_on_exact_preferences(policy: Tensor) -> Tensor:
    """Every ordered pair, weighed by the chance that its first response is preferred under REWARD."""
    total = torch.zeros((), dtype=torch.float64)
    for pair in permutations(range(5), 2):
        chosen, rejected = (torch.tensor([index]) for index in pair)
        chance = torch.sigmoid(REWARD[chosen] - REWARD[rejected]).squeeze()
        total = total + chance * dpo_loss(policy[chosen], policy[rejected], REFERENCE[chosen], REFERENCE[rejected], BETA)
    return total


def test_dpo_rests_at_the_closed_form_and_nowhere_near_it() -> None:
    logits = OPTIMUM.clone().requires_grad_()
    dpo_on_exact_preferences(torch.log_softmax(logits, 0)).backward()
    assert_near(logits.grad, torch.zeros(5), 1e-10)
    moved = (OPTIMUM + float64([0.1, 0.0, 0.0, 0.0, 0.0])).requires_grad_()
    dpo_on_exact_preferences(torch.log_softmax(moved, 0)).backward()
    assert moved.grad is not None
    assert moved.grad[0].item() > 1e-3


def test_at_the_closed_form_every_response_is_paid_the_same() -> None:
    """r - beta log(pi*/pi_ref) = beta log Z, whatever was sampled: PPO with kl_ctl = beta has nothing left to gain."""
    one_token = torch.ones(5, 1, dtype=torch.bool)
    paid = token_rewards(REWARD, OPTIMUM.unsqueeze(1), REFERENCE.unsqueeze(1), one_token, BETA)
    log_z = math.log(sum(math.exp(q + r / BETA) for q, r in zip(REFERENCE.tolist(), REWARD.tolist(), strict=True)))
    assert_near(paid, [[BETA * log_z]] * 5)


@given(st.lists(st.tuples(numbers(), numbers(), numbers(), numbers()), min_size=1, max_size=4), st.floats(0.05, 2))
def test_ipo_and_hinge_against_their_definitions(batch: list[tuple[float, float, float, float]], beta: float) -> None:
    four = [float64(list(side)) for side in zip(*batch, strict=True)]
    gaps = [(chosen - ref_chosen) - (rejected - ref_rejected) for chosen, rejected, ref_chosen, ref_rejected in batch]
    assert_near(ipo_loss(*four, beta), twins.mean([(gap - 1 / (2 * beta)) ** 2 for gap in gaps]), 1e-8)
    assert_near(dpo_hinge_loss(*four, beta), twins.mean([max(0.0, 1 - beta * gap) for gap in gaps]))


@pytest.mark.parametrize("loss", [dpo_loss, ipo_loss, dpo_hinge_loss])
def test_losses_of_pairs_turn_the_same_way_and_leave_the_reference_alone(loss: Callable[..., Tensor]) -> None:
    chosen, rejected, *ref = [float64([-2.0]).requires_grad_() for _ in range(4)]
    loss(chosen, rejected, *ref, 0.5).backward()
    assert chosen.grad.item() < 0 < rejected.grad.item()
    assert_near(chosen.grad, -rejected.grad)
    assert [x.grad for x in ref] == [None, None]


def test_where_each_loss_has_enough() -> None:
    """IPO rests at a gap of 1 / (2 beta), the hinge from 1 / beta on, and the sigmoid nowhere."""
    beta, zero = 0.5, float64([0.0])

    def slope(loss: Callable[..., Tensor], gap: float) -> float:
        chosen = float64([gap]).requires_grad_()
        loss(chosen, zero, zero, zero, beta).backward()
        assert chosen.grad is not None
        return chosen.grad.item()

    assert [slope(ipo_loss, gap) for gap in (0.0, 1.0, 2.0)] == [-2.0, 0.0, 2.0]
    assert [slope(dpo_hinge_loss, gap) for gap in (0.0, 1.9, 2.1)] == [-0.5, -0.5, 0.0]
    assert slope(dpo_loss, 20.0) < 0


@pytest.mark.parametrize("loss", [dpo_loss, ipo_loss, dpo_hinge_loss])
def test_every_loss_of_pairs_refuses_the_same(loss: Callable[..., Tensor]) -> None:
    x = torch.zeros(3)
    for beta in (0.0, -0.1, NAN, math.inf):
        with pytest.raises(ValueError, match=r"beta \("):
            loss(x, x, x, x, beta)
    names = ("chosen_logps", "rejected_logps", "ref_chosen_logps", "ref_rejected_logps")
    for i in range(4):
        sizes = [1 if i == j else 3 for j in range(4)]
        shapes = ", ".join(rf"{name} \({size},\)" for name, size in zip(names, sizes, strict=True))
        with pytest.raises(ValueError, match=f"^shapes must be equal: {shapes}$"):
            loss(*(x[:size] for size in sizes), 0.1)
    with pytest.raises(ValueError, match=r"chosen_logps must be \(B\)"):
        loss(torch.zeros(3, 2), x, x, x, 0.1)
    for i, name in enumerate(names):
        four = [x.clone() for _ in range(4)]
        four[i][1] = NAN
        with pytest.raises(ValueError, match=rf"^{name} is NaN at \(1,\)"):
            loss(*four, 0.1)


def test_refusals() -> None:
    x = torch.zeros(3)
    with pytest.raises(ValueError, match=r"chosen_rewards \(3,\), rejected_rewards \(1,\)"):
        reward_model_loss(x, x[:1])
    with pytest.raises(ValueError, match=r"margin \(1,\)"):
        reward_model_loss(x, x, x[:1])
    with pytest.raises(ValueError, match=r"margin \(\)"):
        reward_model_loss(x, x, torch.tensor(0.5))
    with pytest.raises(ValueError, match=r"margin is NaN"):
        reward_model_loss(x, x, NAN)
    with pytest.raises(ValueError, match=r"rejected_rewards is NaN at \(1,\)"):
        reward_model_loss(x, torch.tensor([0.0, NAN, 0.0]))
    with pytest.raises(ValueError, match=r"chosen_rewards must be \(B\) and not empty, not \(0,\)"):
        reward_model_loss(x[:0], x[:0])
    with pytest.raises(ValueError, match=r"K \(1\) must be at least 2"):
        ranking_loss(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"scores \(2, 3\), ranks \(1, 3\)"):
        ranking_loss(torch.zeros(2, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"scores must be \(B, K\)"):
        ranking_loss(x, x)
    with pytest.raises(ValueError, match=r"ranks is NaN at \(0, 1\)"):
        ranking_loss(torch.zeros(1, 2), torch.tensor([[0.0, NAN]]))
    with pytest.raises(ValueError, match=r"scores is NaN at \(0, 0\)"):
        ranking_loss(torch.tensor([[NAN, 0.0]]), torch.tensor([[1, 1]]))
    for beta in (0.0, -0.1, NAN, math.inf):
        with pytest.raises(ValueError, match=r"beta \("):
            dpo_loss(x, x, x, x, beta)
    for smoothing in (-0.1, 0.6, NAN):
        with pytest.raises(ValueError, match=r"label_smoothing \("):
            dpo_loss(x, x, x, x, 0.1, smoothing)
    with pytest.raises(ValueError, match=r"chosen_logps must be \(B\)"):  # per token where per response is asked for
        dpo_loss(*[torch.zeros(3, 4)] * 4, 0.1)
    with pytest.raises(ValueError, match=r"ref_rejected_logps \(1,\)"):
        dpo_loss(x, x, x, x[:1], 0.1)
    names = ["chosen_logps", "rejected_logps", "ref_chosen_logps", "ref_rejected_logps"]
    for i, name in enumerate(names):
        arguments = [torch.full((3,), NAN) if i == j else x for j in range(4)]
        with pytest.raises(ValueError, match=rf"^{name} is NaN at \(0,\)"):
            dpo_loss(*arguments, 0.1)
