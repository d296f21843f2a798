"""What a rollout is made of: prompts in turn, responses of the policy that is scored, the same ids for every model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rlhf.models.batching import Batching
from rlhf.models.generation import generate
from rlhf.training import ppo
from rlhf.training import rollout as rollouts
from rlhf.training.ppo_state import policy_of
from tests.models.tiny_models import PAD
from tests.training.table import a_rollout, ppo_settings, ppo_table


def test_every_model_reads_the_ids_that_were_sampled(
    architecture: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From prompt to last token, and of each response the same in all: no text stands between them."""
    settings = ppo_settings(responses_per_step=12)
    state, environment = ppo_table(settings, architecture, precision)
    sampled: list[list[int]] = []

    def spy(policy: Any, prompts: list[list[int]], *rest: Any) -> Any:
        responses = generate(policy, prompts, *rest)
        sampled.extend([*p, *r.response_ids] for p, r in zip(prompts, responses, strict=True))
        return responses

    monkeypatch.setattr(rollouts, "generate", spy)
    read: dict[str, list[list[int]]] = {"reference": [], "reward_model": [], "critic": []}
    assert state.critic is not None
    models = (environment.reference, environment.reward_model, state.critic.model)
    for ids, model in zip(read.values(), models, strict=True):
        model.base_model.register_forward_pre_hook(
            lambda _module, args, named, ids=ids: ids.extend([*args, *named.values()][0].tolist()), with_kwargs=True
        )
    ppo.sample(state, environment, settings)
    longest_first = sorted(sampled, key=len, reverse=True)
    for ids in read.values():
        assert [row[: len(own)] for row, own in zip(ids, longest_first, strict=True)] == longest_first


def test_the_mean_of_k1_over_a_policys_own_samples_is_its_kl(architecture: str, precision: str) -> None:
    """512 responses of a policy that has moved: not negative, and within 4 standard errors of the mean of k3.

    Of other samples (another temperature, greedy, top-k) the two estimators differ in expectation."""
    settings = ppo_settings(responses_per_step=512, temperature=0.7)
    rollout = a_rollout(settings, architecture, precision, batching=Batching(PAD, 2000))
    log_ratio = (rollout.old_logprobs - rollout.ref_logprobs).double()
    signed, never_negative = log_ratio.sum(1), (torch.expm1(-log_ratio) + log_ratio).sum(1)
    assert (signed < 0).any()
    assert float(signed.mean()) >= -3 * error_of(signed)
    assert abs(float((signed - never_negative).mean())) < 4 * error_of(signed - never_negative)
    assert float(never_negative.mean()) > 4 * error_of(never_negative)


def error_of(x: torch.Tensor) -> float:
    return float(x.std() / len(x) ** 0.5)


def test_a_rollout_is_a_function_of_the_step(architecture: str, precision: str) -> None:
    settings = ppo_settings()
    state, environment = ppo_table(settings, architecture, precision)
    first, again = (ppo.sample(state, environment, settings).examples for _ in range(2))
    assert first == again


def test_the_same_prompts_get_other_responses_at_another_step(architecture: str, precision: str) -> None:
    settings = ppo_settings()
    state, environment = ppo_table(settings, architecture, precision, prompts=[[5, 6, 7]] * 8)
    first = ppo.sample(state, environment, settings).examples
    state.step = 1
    second = ppo.sample(state, environment, settings).examples
    assert [e.prompt_ids for e in first] == [e.prompt_ids for e in second]
    assert first != second
    assert all(a not in second for a in first if len(a.response_ids) > 3)


def test_a_rollout_is_sampled_and_not_the_likeliest(architecture: str, precision: str) -> None:
    settings = ppo_settings()
    state, environment = ppo_table(settings, architecture, precision, prompts=[[5, 6, 7]] * 8)
    drawn, otherwise = (
        [tuple(e.response_ids) for e in ppo.sample(state, replace(environment, seed=seed), settings).examples]
        for seed in (5, 6)
    )
    (likeliest,) = generate(policy_of(state), [[5, 6, 7]], environment.decoding, None, seed=5)
    assert len(set(drawn)) > 4
    assert drawn != otherwise
    assert sum(response != tuple(likeliest.response_ids) for response in drawn) > 4


def test_every_prompt_is_used_once_before_any_comes_again() -> None:
    settings = ppo_settings(responses_per_step=4)
    state, environment = ppo_table(settings)  # 12 prompts: three steps an epoch
    for epoch in range(2):
        used = []
        for step in range(3 * epoch, 3 * epoch + 3):
            state.step = step
            used += [e.prompt_ids for e in ppo.sample(state, environment, settings).examples]
        assert sorted(used) == sorted(environment.prompts)
