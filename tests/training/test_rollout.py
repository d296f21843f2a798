"""From responses to what each token is worth, against slow twins on lists."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf.models.batching import Batching
from rlhf.models.forward import response_logprobs, response_values
from rlhf.models.generation import Decoding
from rlhf.models.tokens import collate
from rlhf.training import ppo, ppo_metrics
from rlhf.training.rollout import Rollout, assign_credit, cut, padded, response_mask_of
from tests.helpers import ROUNDING, assert_near
from tests.maths import twins
from tests.models.tiny_models import EOS, PAD, random_examples
from tests.training.table import SHARED, a_rollout, ppo_settings, ppo_table


def real(rollout: Rollout, x: torch.Tensor) -> list[list[float]]:
    return [row[mask].tolist() for row, mask in zip(x, rollout.response_mask, strict=True)]


def test_a_rollout_holds_what_each_model_says(architecture: str, precision: str) -> None:
    settings = ppo_settings(temperature=0.8, missing_end_score=-7.0, responses_per_step=12)
    state, environment = ppo_table(settings, architecture, precision)
    rollout = ppo.sample(state, environment, settings)
    batch = collate(rollout.examples, PAD)
    assert 0 < int(rollout.ended.sum()) < 12
    assert rollout.ended.tolist() == [e.response_ids[-1] == EOS for e in rollout.examples]
    assert torch.equal(rollout.response_mask, batch.response_mask)
    assert_near(rollout.old_logprobs, response_logprobs(state.policy.model, batch, 0.8), ROUNDING[precision])
    assert_near(rollout.ref_logprobs, response_logprobs(environment.reference, batch, 0.8), ROUNDING[precision])
    assert state.critic is not None
    assert_near(rollout.values, response_values(state.critic.model, batch), ROUNDING[precision])
    for tensor in (rollout.old_logprobs, rollout.ref_logprobs, rollout.entropy, rollout.values):
        assert not tensor.requires_grad
        assert tensor[~rollout.response_mask].eq(0).all()


def test_a_response_without_an_end_gets_the_constant_instead_of_its_score(architecture: str, precision: str) -> None:
    """An end token in the prompt is no end of the response."""
    prompts = [[*e.prompt_ids, EOS, 5] for e in random_examples(12, seed=1)]
    settings = ppo_settings(missing_end_score=-7.0, responses_per_step=12)
    rollout = a_rollout(settings, architecture, precision, prompts=prompts, decoding=Decoding(EOS, PAD, 3))
    assert (rollout.scores == -7.0).tolist() == (~rollout.ended).tolist()
    assert torch.equal(rollout.scores[rollout.ended], rollout.raw_scores[rollout.ended])
    assert (rollout.raw_scores != -7.0).all()


def test_an_end_token_is_an_action_and_nothing_follows_it(architecture: str, precision: str) -> None:
    """It is scored, priced and given its advantage like any token, where a pad token is none of these."""
    rollout = a_rollout(ppo_settings(responses_per_step=12), architecture, precision)
    experience = assign_credit(rollout, ppo_settings(), 0.1)
    assert rollout.response_mask.sum(1).tolist() == [len(e.response_ids) for e in rollout.examples]
    for i, example in enumerate(rollout.examples):
        last = len(example.response_ids) - 1
        assert example.response_ids.count(EOS) == int(rollout.ended[i])
        assert (example.response_ids[last] == EOS) == bool(rollout.ended[i])
        for x in (rollout.old_logprobs, rollout.ref_logprobs, rollout.values, experience.rewards, experience.advantages):
            assert x[i, last] != 0
            assert not x[i, last + 1 :].any()


@pytest.mark.parametrize("changes", [{}, {"gamma": 0.9, "lam": 0.7}, {"lam": 0.0}, {"critic_target": "td", "gamma": 0.9}])
def test_credit_is_what_the_definitions_say(architecture: str, precision: str, changes: dict[str, Any]) -> None:
    settings = ppo_settings(whiten_advantages=False, responses_per_step=12, responses_per_minibatch=12, **changes)
    rollout = a_rollout(settings, architecture, precision)
    experience = assign_credit(rollout, settings, kl_ctl=0.3)
    everything = (rollout.old_logprobs, rollout.ref_logprobs, rollout.values)
    told = (experience.rewards, experience.advantages, experience.returns)
    rows = zip(rollout.scores.tolist(), *(real(rollout, x) for x in (*everything, *told)), strict=True)
    for score, old, ref, values, rewards, advantages, returns in rows:
        paid = twins.rewards(score, old, ref, 0.3)
        expected = twins.gae(paid, values, settings.gamma, settings.lam)
        targets = [a + v for a, v in zip(expected, values, strict=True)]
        if settings.critic_target == "td":
            targets = [d + v for d, v in zip(twins.deltas(paid, values, settings.gamma), values, strict=True)]
        for ours, theirs in ((rewards, paid), (advantages, expected), (returns, targets)):
            assert_near(torch.tensor(ours), torch.tensor(theirs), 1e-5)


def test_the_score_sits_on_the_last_real_token(architecture: str, precision: str) -> None:
    rollout = a_rollout(ppo_settings(responses_per_step=12), architecture, precision)
    rewards = assign_credit(rollout, ppo_settings(), kl_ctl=0.0).rewards
    for row, score, example in zip(rewards.tolist(), rollout.scores.tolist(), rollout.examples, strict=True):
        last = len(example.response_ids) - 1
        assert [t for t, reward in enumerate(row) if reward] == [last]
        assert row[last] == score


def test_whitening_is_over_the_real_tokens_of_the_whole_rollout(architecture: str, precision: str) -> None:
    rollout = a_rollout(ppo_settings(responses_per_step=12), architecture, precision)
    plain, white = (
        assign_credit(rollout, ppo_settings(whiten_advantages=whiten), 0.1).advantages for whiten in (False, True)
    )
    before, after = (twins.every(real(rollout, x)) for x in (plain, white))
    centre, spread = twins.mean(before), twins.variance(before) ** 0.5
    assert_near(torch.tensor(after), torch.tensor([(x - centre) / spread for x in before]), 1e-5)
    assert white[~rollout.response_mask].eq(0).all()


def test_returns_are_those_before_whitening(architecture: str, precision: str) -> None:
    rollout = a_rollout(ppo_settings(responses_per_step=12), architecture, precision)
    plain, white = (assign_credit(rollout, ppo_settings(whiten_advantages=w), 0.1).returns for w in (False, True))
    assert torch.equal(plain, white)


@pytest.mark.parametrize("tokens", [1, 25, 10_000])
def test_minibatches_are_their_rows_cut_to_their_longest(tokens: int) -> None:
    settings = ppo_settings(responses_per_step=12)
    experience = assign_credit(a_rollout(settings), settings, 0.1)
    chosen = [7, 2, 11, 0, 5]
    by_example = {id(e): i for i, e in enumerate(experience.rollout.examples)}
    seen = []
    for part in cut(experience, chosen, Batching(PAD, tokens)):
        rows = [by_example[id(e)] for e in part.examples]
        seen += rows
        width = max(len(e.response_ids) for e in part.examples)
        whole = (experience.rollout.old_logprobs, experience.rollout.values, experience.advantages, experience.returns)
        for ours, theirs in zip((part.old_logprobs, part.old_values, part.advantages, part.returns), whole, strict=True):
            assert torch.equal(ours, theirs[rows][:, :width])
    assert sorted(seen) == sorted(chosen)


def test_padding_and_masks_by_hand() -> None:
    assert padded([torch.tensor([1.0]), torch.tensor([2.0, 3.0])], 3).tolist() == [[1.0, 0.0, 0.0], [2.0, 3.0, 0.0]]
    examples = random_examples(3)
    assert response_mask_of(examples, PAD).sum(1).tolist() == [len(e.response_ids) for e in examples]


@pytest.mark.parametrize("critic", [{}, SHARED])
def test_figures_of_a_rollout(critic: dict[str, Any]) -> None:
    settings = ppo_settings(responses_per_step=12, **critic)
    rollout = a_rollout(settings)
    experience = assign_credit(rollout, settings, 0.3)
    figures = ppo_metrics.rollout_metrics(experience, 0.3, settings)
    old, ref, entropy, values, returns = (
        real(rollout, x)
        for x in (rollout.old_logprobs, rollout.ref_logprobs, rollout.entropy, rollout.values, experience.returns)
    )
    kl = [[p - q for p, q in zip(a, b, strict=True)] for a, b in zip(old, ref, strict=True)]
    errors = [r - v for r, v in zip(twins.every(returns), twins.every(values), strict=True)]
    expected = {
        "score": twins.mean(rollout.raw_scores.tolist()),
        "score_sd": twins.variance(rollout.raw_scores.tolist()) ** 0.5,
        "reward": twins.mean([s - 0.3 * sum(row) for s, row in zip(rollout.scores.tolist(), kl, strict=True)]),
        "kl_per_response": twins.mean([sum(row) for row in kl]),
        "kl_per_token": twins.mean(twins.every(kl)),
        "kl_ctl": 0.3,
        "entropy": twins.mean(twins.every(entropy)),
        "response_tokens": twins.mean([float(len(e.response_ids)) for e in rollout.examples]),
        "ended": twins.mean([float(e.response_ids[-1] == EOS) for e in rollout.examples]),
        "worse_than_unended": twins.mean([float(s < -1.0) for s in rollout.scores.tolist()]),
        "explained_variance": 1 - twins.variance(errors) / twins.variance(twins.every(returns)),
        **mean_and_sd("returns", returns),
        **mean_and_sd("value", values),
        **mean_and_sd("advantage", [errors]),  # before they are whitened (SPEC eq. 10)
    }
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert_near(figures[name], value, 1e-5)
    assert abs(expected["kl_per_response"]) > 1e-3
    assert abs(expected["advantage_sd"] - 1.0) > 1e-2


def mean_and_sd(name: str, rows: twins.Rows) -> dict[str, float]:
    return {name: twins.mean(twins.every(rows)), f"{name}_sd": twins.variance(twins.every(rows)) ** 0.5}


def test_of_steps_the_means_are_over_those_that_have_the_figure_and_the_peak_is_the_largest() -> None:
    rows = [{"a": 1.0, "ratio_peak": 7.0}, {"a": 3.0, "b": 5.0}, {"a": 2.0, "ratio_peak": 2.0}]
    assert ppo_metrics.over_steps(rows) == {"a": 2.0, "ratio_peak": 7.0, "b": 5.0}
