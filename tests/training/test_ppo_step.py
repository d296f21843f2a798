"""What one step of PPO descends: the losses of the definitions, however the step is cut, and whom each of them reaches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlhf.models.batching import Batching
from rlhf.models.tokens import Example
from rlhf.runtime.engine.single import TorchEngine
from rlhf.training import ppo as loop
from rlhf.training import ppo_update
from rlhf.training.ppo_state import PPOState, model_of, policy_of
from rlhf.training.ppo_update import PtxPart
from rlhf.training.rollout import assign_credit
from tests.helpers import ROUNDING, SUMMED, assert_near
from tests.models.tiny_models import PAD, random_examples
from tests.training.table import CRITICS, METHODS, STEADY, ppo_settings, ppo_table, run, steps_of, stop, weights


@CRITICS
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_ratio_that_has_left_its_range_earns_nothing_more(
    architecture: str, precision: str, critic: dict[str, Any], sign: float
) -> None:
    """Log-ratios of 1 where that pays, or of -1 where that does: a loss at the edge of the clip, and no gradient."""
    settings = ppo_settings(ppo_epochs=1, responses_per_minibatch=8, clip_range=0.2, value_clip=0.0, **critic)
    state, environment = ppo_table(settings, architecture, precision)
    experience = assign_credit(loop.sample(state, environment, settings), settings, 0.1)
    mask = experience.rollout.response_mask
    moved = replace(experience.rollout, old_logprobs=(experience.rollout.old_logprobs - sign) * mask)
    paid = replace(experience, rollout=moved, advantages=sign * mask.float(), returns=moved.values)
    figures = ppo_update.learn(state, paid, environment, settings)
    assert_near(figures["policy_loss"], -sign * (1 + sign * 0.2), 1e-5)
    assert figures["clip_fraction"] == pytest.approx(1.0)
    assert_near(figures["approximate_kl"], math.exp(sign) - 1 - sign, 1e-5)
    assert figures["policy_gradient_norm"] < 1e-6


def per_token(state: PPOState, example: Example, temperature: float = 1.0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Log-probabilities and values of one response, from one row without padding, each of its own forward pass."""
    policy, start = policy_of(state), len(example.prompt_ids)
    ids = torch.tensor([example.prompt_ids + example.response_ids])
    places = range(start - 1, start - 1 + len(example.response_ids))
    logits = policy(input_ids=ids).logits[0].float()
    logprobs = [torch.log_softmax(logits[t] / temperature, -1)[ids[0, t + 1]] for t in places]
    model = model_of(state.critic) if state.critic else policy
    head = model.score if state.critic else state.policy.model.value_head
    hidden = model.base_model(input_ids=ids).last_hidden_state[0]
    return logprobs, [head(hidden[t].float())[0] for t in places]


@CRITICS
@pytest.mark.parametrize("ptx_coef", [0.0, 0.7])
def test_one_step_descends_the_losses_of_the_definitions(
    architecture: str, precision: str, critic: dict[str, Any], ptx_coef: float
) -> None:
    """One rollout, one minibatch: gradient norms and losses against a twin that adds up tokens one by one."""
    demonstrations = random_examples(8, seed=3)
    settings = ppo_settings(
        ppo_epochs=1, responses_per_minibatch=8, temperature=0.8, ptx_coef=ptx_coef, value_clip=0.0, **critic
    )
    state, environment = ppo_table(settings, architecture, precision, demonstrations=demonstrations)
    rollout = loop.sample(state, environment, settings)
    experience = assign_credit(rollout, settings, 0.1)

    twin, _ = ppo_table(settings, architecture, precision)
    gains, errors = [], []
    for i, example in enumerate(rollout.examples):
        logprobs, values = per_token(twin, example, 0.8)
        for t, (logprob, value) in enumerate(zip(logprobs, values, strict=True)):
            gains.append((logprob - logprob.detach()).exp() * experience.advantages[i, t])
            errors.append((value - experience.returns[i, t]).square() / 2)
    nll = torch.stack([-p for e in demonstrations for p in per_token(twin, e)[0]]).mean()
    actor, of_critic = -torch.stack(gains).mean(), torch.stack(errors).mean()
    (actor + ptx_coef * nll + (settings.w_c or 1.0) * of_critic).backward()

    def norm(engine: TorchEngine) -> float:
        return math.sqrt(sum(float(p.grad.double().square().sum()) for p in engine._masters.values() if p.grad is not None))

    figures = ppo_update.learn(state, experience, environment, settings)
    assert_near(figures["policy_loss"], actor, ROUNDING[precision])
    assert_near(figures["critic_loss"], of_critic, SUMMED[precision])
    assert_near(figures["policy_gradient_norm"], norm(twin.policy), SUMMED[precision])
    if twin.critic is not None:
        assert_near(figures["critic_gradient_norm"], norm(twin.critic), SUMMED[precision])


@METHODS
def test_how_a_step_is_cut_changes_nothing_beside_demonstrations_either(critic: dict[str, Any]) -> None:
    trained, rate = {}, 30.0
    for tokens in (1, 25, 10_000):
        settings = ppo_settings(ppo_epochs=2, ptx_coef=0.7, lr=rate, critic_lr=rate, **critic)
        state, environment = ppo_table(settings, optimizer_changes=STEADY)
        before = weights(state.policy.model)
        rollout = loop.sample(state, environment, settings)  # the same rollout for all, cut apart in learning alone
        experience = assign_credit(rollout, settings, 0.1)
        figures = ppo_update.learn(state, experience, replace(environment, batching=Batching(PAD, tokens)), settings)
        both = [weights(engine.model) for engine in (state.policy, state.critic) if engine]
        assert float((both[0] - before).abs().max()) > 1e-3
        trained[tokens] = (torch.cat(both), figures)
    for tokens in (1, 25):
        assert_near(trained[tokens][0], trained[10_000][0], 2e-6)
        for name, value in trained[tokens][1].items():
            assert_near(value, trained[10_000][1][name], 1e-4)


@CRITICS
def test_every_minibatch_has_demonstrations_of_its_own(critic: dict[str, Any]) -> None:
    """As many as responses, others each time: in every minibatch of every epoch of every step."""
    settings = ppo_settings(**stop(steps=2), ptx_coef=0.1, **critic)
    state, environment = ppo_table(settings, demonstrations=random_examples(40, seed=3))
    steps = steps_of(state.policy)
    run(state, environment, settings)
    chosen = [[e for part in step if isinstance(part, PtxPart) for e in part.examples] for step in steps]
    assert [len(examples) for examples in chosen] == [4] * 8
    assert all(len({environment.demonstrations.index(e) for e in examples}) == 4 for examples in chosen)
    assert len({frozenset(environment.demonstrations.index(e) for e in examples) for examples in chosen}) == 8


def test_the_value_loss_of_a_shared_trunk_reaches_the_trunk_and_w_c_weighs_it(architecture: str, precision: str) -> None:
    """With advantages of 0 only the critic teaches; its head is 0 at first, so the trunk hears from the second step on."""
    moved = {}
    for w_c in (0.0, 1.0):
        settings = ppo_settings(critic="shared", w_c=1.0, ppo_epochs=2, responses_per_minibatch=8)
        settings = settings.model_copy(update={"w_c": w_c})  # of 0, which the settings refuse
        state, environment = ppo_table(settings, architecture, precision)
        trunk = weights(policy_of(state).base_model)
        experience = assign_credit(loop.sample(state, environment, settings), settings, 0.1)
        silent = replace(experience, advantages=torch.zeros_like(experience.advantages))
        ppo_update.learn(state, silent, environment, settings)
        moved[w_c] = not torch.equal(weights(policy_of(state).base_model), trunk)
    assert moved == {0.0: False, 1.0: True}


def test_a_separate_critic_leaves_the_policy_alone(architecture: str, precision: str) -> None:
    settings = ppo_settings(ppo_epochs=2)
    state, environment = ppo_table(settings, architecture, precision)
    before = weights(policy_of(state))
    experience = assign_credit(loop.sample(state, environment, settings), settings, 0.1)
    ppo_update.learn(state, replace(experience, advantages=torch.zeros_like(experience.advantages)), environment, settings)
    assert_near(weights(policy_of(state)), before, 1e-9)
