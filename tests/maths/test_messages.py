"""Each message of the maths, word for word: it names the argument at fault and its value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch

from rlhf.maths import advantages, losses
from rlhf.maths.bradley_terry import OpenEnded, strengths
from rlhf.maths.kl import AdaptiveKL, FixedKL, k1
from rlhf.maths.masked import masked_mean
from tests.helpers import NAN, float64, lengths_to_mask

X, MASK = torch.zeros(2, 3), lengths_to_mask([3, 1])
PAIRS = torch.zeros(3)
EVEN = float64([[0, 1], [1, 0]])
LADDER = torch.diag(torch.full((11,), 1e15), 1) + torch.diag(torch.ones(11), -1)

MESSAGES: list[tuple[Callable[[], object], str]] = [
    (lambda: k1(X, X[:1]), "shapes must be equal: logprobs (2, 3), ref_logprobs (1, 3)"),
    (
        lambda: losses.ipo_loss(PAIRS, PAIRS, PAIRS, PAIRS[:1], 0.1),
        "shapes must be equal: chosen_logps (3,), rejected_logps (3,), ref_chosen_logps (3,), ref_rejected_logps (1,)",
    ),
    (
        lambda: losses.reward_model_loss(PAIRS, PAIRS[:1]),
        "shapes must be equal: chosen_rewards (3,), rejected_rewards (1,), margin (3,)",
    ),
    (lambda: advantages.gae(X[0], X[0], MASK[0], 1.0, 1.0), "rewards must be (B, R) and not empty, not (3,)"),
    (lambda: advantages.rloo(X[0], MASK[0], 3), "rewards must be (B, R) and not empty, not (3,)"),
    (lambda: advantages.grpo(X[0], MASK[0], 3), "rewards must be (B, R) and not empty, not (3,)"),
    (lambda: losses.reward_model_loss(PAIRS[:0], PAIRS[:0]), "chosen_rewards must be (B) and not empty, not (0,)"),
    (lambda: losses.dpo_loss(*[X] * 4, 0.1), "chosen_logps must be (B) and not empty, not (2, 3)"),
    (lambda: losses.ranking_loss(PAIRS, PAIRS), "scores must be (B, K) and not empty, not (3,)"),
    (lambda: losses.reward_model_loss(PAIRS, PAIRS, NAN), "margin is NaN at (0,)"),
    (lambda: losses.reward_model_loss(torch.tensor([0.0, NAN]), torch.zeros(2)), "chosen_rewards is NaN at (1,)"),
    (lambda: masked_mean(X.masked_fill(MASK, NAN), MASK), "x is NaN at (0, 0)"),
    (lambda: masked_mean(X, MASK.long()), "mask must be a bool tensor (True = real token), not torch.int64"),
    (
        lambda: losses.sft_loss(X, MASK.float()),
        "response_mask must be a bool tensor (True = real token), not torch.float32",
    ),
    (lambda: masked_mean(X[:0], MASK[:0]), "mask must not be empty, its shape is (0, 3)"),
    (lambda: masked_mean(X, lengths_to_mask([3, 0])), "mask (2, 3) has no real token in row 1"),
    (lambda: losses.policy_loss(X, X, X, MASK, 1.0), "clip_range (1.0) must be in (0.0, 1.0)"),
    (lambda: advantages.gae(X, X, MASK, 1.5, 1.0), "gamma (1.5) must be in [0.0, 1.0]"),
    (lambda: advantages.gae(X, X, MASK, 1.0, -0.5), "lam (-0.5) must be in [0.0, 1.0]"),
    (lambda: losses.dpo_loss(*[PAIRS] * 4, 0.1, 0.6), "label_smoothing (0.6) must be in [0.0, 0.5]"),
    (lambda: FixedKL(-0.1), "kl_ctl (-0.1) must be finite and not negative"),
    (lambda: losses.value_loss(X, X, X, MASK, 0.0), "value_clip (0.0) must be positive and finite"),
    (lambda: losses.sft_loss(X, MASK, normaliser=0.0), "normaliser (0.0) must be positive and finite"),
    (lambda: losses.dpo_hinge_loss(*[PAIRS] * 4, math.inf), "beta (inf) must be positive and finite"),
    (
        lambda: advantages.token_rewards(PAIRS, X, X, MASK, 0.1),
        "scores (3,) must be (B,), with the B of logprobs (2, 3)",
    ),
    (
        lambda: advantages.rloo(X, MASK, 4),
        "responses_per_prompt (4) must be at least 2 and divide the number of responses (2)",
    ),
    (lambda: losses.ranking_loss(X[:, :1], X[:, :1]), "K (1) must be at least 2: a ranking has pairs"),
    (lambda: AdaptiveKL(0.0, 6.0, 100), "kl_ctl (0.0) must be positive and finite"),
    (lambda: AdaptiveKL(0.1, 6.0, 100).update(NAN, 1), "kl_per_response (nan) must be finite"),
    (lambda: AdaptiveKL(0.1, 6.0, 100).update(0.0, 500), "responses (500) must be fewer than 5 x horizon (100)"),
    (
        lambda: FixedKL(0.1).load_state_dict({"step": 3, "kl_ctl": 0.1}),
        "the state of a KL controller has one entry, kl_ctl, not ['kl_ctl', 'step']",
    ),
    (lambda: strengths(torch.zeros(2, 3)), "wins must be (N, N) with N >= 2, not (2, 3)"),
    (lambda: strengths(EVEN, torch.zeros(3, 3)), "ties (3, 3) and wins (2, 2) must have one shape"),
    (lambda: strengths(EVEN, EVEN.triu()), "ties must be symmetric: ties[0, 1] is 1.0, ties[1, 0] 0.0"),
    (lambda: strengths(-EVEN), "wins[0, 1] is -1.0: counts are finite, not negative, and 0 on the diagonal"),
    (lambda: strengths(EVEN, EVEN.cumsum(1)), "ties[1, 1] is 1.0: counts are finite, not negative, and 0 on the diagonal"),
    (lambda: strengths(torch.zeros(2, 2)), "items [0] never met items [1]: their strengths cannot be compared"),
    (
        lambda: strengths(EVEN.triu()),
        "no finite strengths: items [0] were never beaten by the others, items [1] never beat the others",
    ),
    (lambda: strengths(LADDER.double()), "wins from 1 to 1e+15 are too far apart to be placed in float64"),
]


@pytest.mark.parametrize(("refused", "message"), MESSAGES, ids=[message for _, message in MESSAGES])
def test_a_refusal_says_what_is_wrong(refused: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
        refused()


def test_a_refusal_of_open_ended_results_says_which_items_apart_from_what_is_wrong() -> None:
    """So that they can be called by their names."""
    with pytest.raises(OpenEnded) as refused:
        strengths(float64([[0, 0, 1], [0, 0, 1], [0, 0, 0]]))
    assert refused.value.about == "no finite strengths: {} were never beaten by the others, {} never beat the others"
    assert refused.value.groups == ([0, 1], [2])
