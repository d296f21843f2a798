"""TRL's functions on tensors against ours."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from rlhf.maths.masked import masked_mean, masked_variance, masked_whiten
from rlhf.models.generation import Decoding, generate
from rlhf.training.rollout import padded
from tests.helpers import assert_near, lengths_to_mask
from tests.models.tiny_models import EOS, PAD, make_policy, random_examples
from tests.parity.descent import SAME
from tests.training.table import ends_often

MASK = lengths_to_mask([5, 2, 7, 1, 4], width=7)
VALUES = 3 * torch.randn(MASK.shape, generator=torch.Generator().manual_seed(0)) + 1
LONGEST = 12


def test_the_mean_is_theirs(ppo_trainer: ModuleType) -> None:
    assert_near(masked_mean(VALUES, MASK), ppo_trainer.masked_mean(VALUES, MASK), SAME)
    assert_near(masked_variance(VALUES, MASK), ppo_trainer.masked_var(VALUES, MASK, unbiased=False), SAME)


def test_what_is_whitened_is_theirs_but_for_n_less_one(ppo_trainer: ModuleType) -> None:
    """They divide the variance by n - 1; lm-human-preferences, where both come from, divides by n (tf.nn.moments)."""
    n = int(MASK.sum())
    whitened = ppo_trainer.masked_whiten(VALUES, MASK)[MASK]
    assert_near(((n - 1) / n) ** 0.5 * masked_whiten(VALUES, MASK)[MASK], whitened, SAME)
    assert_near(whitened.var(correction=1), 1.0, SAME)
    assert_near(masked_whiten(VALUES, MASK)[MASK].var(correction=0), 1.0, SAME)


def test_padding_that_is_not_finite_spoils_theirs(ppo_trainer: ModuleType) -> None:
    """They multiply by the mask, and NaN * 0 is NaN."""
    spoilt = VALUES.masked_fill(~MASK, float("nan"))
    assert ppo_trainer.masked_mean(spoilt, MASK).isnan()
    assert_near(masked_mean(spoilt, MASK), masked_mean(VALUES, MASK), 0.0)


def test_one_token_alone_has_no_variance_in_theirs(ppo_trainer: ModuleType) -> None:
    one = torch.tensor([[True, False]])
    assert ppo_trainer.masked_whiten(VALUES[:1, :2], one)[0, 0].isnan()
    assert masked_whiten(VALUES[:1, :2], one)[0, 0] == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_a_response_ends_where_theirs_is_cut(ppo_trainer: ModuleType, seed: int) -> None:
    """Sampled past its end and cut by them, or sampled up to its end: from the same random numbers one response."""
    policy, prompts = ends_often(make_policy("llama")), [e.prompt_ids for e in random_examples(16, seed=seed)]
    no_token = -1
    onwards = generate(policy, prompts, Decoding(no_token, PAD, LONGEST), 1.0, seed)
    cut = ppo_trainer.truncate_response(EOS, PAD, torch.tensor([row.response_ids for row in onwards]))
    ours = generate(policy, prompts, Decoding(EOS, PAD, LONGEST), 1.0, seed)
    assert 0 < sum(row.ended for row in ours) < len(ours)
    assert torch.equal(padded([torch.tensor(row.response_ids) for row in ours], LONGEST), cut)
