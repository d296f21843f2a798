"""From settings to what PPO runs on: schedules as long as the run, frozen models, prompts that fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from rlhf.config import Config
from rlhf.data.world import load_world
from rlhf.errors import UserError
from rlhf.maths.kl import AdaptiveKL, FixedKL
from rlhf.models.tokens import Example, encode_response
from rlhf.records import Message, Prompt
from rlhf.training import ppo
from rlhf.training.ppo import train_ppo
from rlhf.training.ppo_setup import make_environment, make_state
from rlhf.training.ppo_state import Environment, SharedTrunk
from rlhf.training.watch import gold_judge
from tests.helpers import assert_near
from tests.models.tiny_models import ends_often, make_classifier, make_policy, words_tokenizer
from tests.training.table import ROOT, SHARED, all_settings, ppo_settings, ppo_table, weights

WORLD = ROOT / "data" / "world" / "english.yaml"


def settings_with(context: int = 12, response: int = 5, **changes: Any) -> Config:
    whole = all_settings(ppo_settings(**changes))
    model, data = (
        whole.model.model_copy(update={"max_tokens": context}),
        whole.data.model_copy(update={"max_response_tokens": response}),
    )
    return whole.model_copy(update={"model": model, "data": data})


def prompt(text: str, split: str) -> Prompt:
    return Prompt((Message("user", text),), split)


PROMPTS = [
    prompt("three", "validation"),
    prompt("one two", "train"),
    prompt("four", "test"),
    prompt("one two three four five six", "train"),
    prompt("five", "validation"),
    prompt("six", "validation"),
]
TRAIN = [PROMPTS[1], PROMPTS[3]]


def environment(settings: Config, prompts: list[Prompt] = PROMPTS, **changes: Any) -> Environment:
    tokenizer = words_tokenizer("one two three four five six seven")
    models = (make_policy("llama"), make_classifier("llama"))
    whole: dict[str, Any] = {"demonstrations": [], "judge": None, "seed": 1} | changes
    return make_environment(settings, *models, tokenizer, prompts=prompts, **whole)


def test_prompts_leave_room_for_the_longest_response() -> None:
    made = environment(settings_with(eval_prompts=2))
    assert [len(ids) for ids in made.prompts] == [5, 7]
    assert len(made.watch.prompts) == 2
    assert made.truncated_prompts == 1
    assert made.decoding.max_response_tokens == 5


def test_validation_is_looked_at_at_the_temperature_of_the_rollouts() -> None:
    assert environment(settings_with(temperature=0.7)).watch.temperature == 0.7


def test_reference_and_reward_model_are_frozen() -> None:
    made = environment(settings_with())
    assert not any(p.requires_grad for model in (made.reference, made.reward_model) for p in model.parameters())


def test_the_judge_sees_the_validation_prompts() -> None:
    asked: list[list[Prompt]] = []
    made = environment(settings_with(eval_prompts=2), judge=lambda prompts, _: asked.append(list(prompts)) or [1.0])
    assert made.watch.judge is not None
    made.watch.judge([])
    assert asked == [[PROMPTS[0], PROMPTS[4]]]


def test_the_gold_rater_may_be_the_reward() -> None:
    """It is asked for the prompts that the responses answer, and the reward model is not asked at all."""
    asked: list[Prompt] = []

    def judge(prompts: Sequence[Prompt], examples: Sequence[Example]) -> list[float]:
        asked.extend(prompts)
        return [float(len(e.response_ids)) for e in examples]

    settings = settings_with(reward_from="gold", responses_per_step=4, responses_per_minibatch=4, missing_end_score=-9.0)
    made = environment(settings, judge=judge)
    made.reward_model.register_forward_hook(lambda *_: pytest.fail("the reward model was asked"))
    state = make_state(settings, ends_often(make_policy("llama")), make_classifier("llama"))
    rollout = ppo.sample(state, made, settings.ppo)
    assert rollout.raw_scores.tolist() == [float(len(e.response_ids)) for e in rollout.examples]
    texts = {tuple(ids): p for ids, p in zip(made.prompts, TRAIN, strict=True)}
    assert asked == [texts[tuple(e.prompt_ids)] for e in rollout.examples]
    figures = ppo.evaluate(state, made)
    assert figures["validation_score"] == figures["validation_gold_score"]
    with pytest.raises(UserError, match=r"ppo.reward_from \(gold\) needs a gold rater"):
        environment(settings)


@pytest.mark.parametrize(
    ("changes", "prompts", "message"),
    [
        ({"context": 5}, PROMPTS, r"data.max_response_tokens \(5\) must be below the context of 5"),
        ({}, TRAIN, "there are no validation prompts"),
        ({}, PROMPTS[4:], "there are no train prompts"),
        ({"ptx_coef": 0.5}, PROMPTS, r"ppo.ptx_coef \(0.5\) needs train demonstrations"),
    ],
)
def test_what_cannot_run_is_refused(changes: dict[str, Any], prompts: list[Prompt], message: str) -> None:
    with pytest.raises(UserError, match=message):
        environment(settings_with(**changes), prompts)


def test_the_kl_is_adaptive_where_it_has_a_target() -> None:
    models = (make_policy("llama"), make_classifier("llama"))
    fixed, adaptive = (make_state(all_settings(ppo_settings(kl_target=t)), *models).kl for t in (0.0, 6.0))
    assert isinstance(fixed, FixedKL)
    assert adaptive == AdaptiveKL(0.1, 6.0, 100)


def test_a_separate_critic_is_the_reward_model_and_learns_though_that_is_frozen() -> None:
    policy, reward_model = make_policy("llama"), make_classifier("llama").requires_grad_(False)
    state = make_state(all_settings(ppo_settings()), policy, reward_model)
    assert state.policy.model is policy
    assert state.critic is not None
    assert state.critic.model is not reward_model
    assert all(p.requires_grad for p in state.critic.model.parameters())
    assert_near(weights(state.critic.model), weights(reward_model))


def test_a_shared_critic_is_a_head_of_zeros_on_the_policy() -> None:
    policy = make_policy("gpt2")
    state = make_state(all_settings(ppo_settings(**SHARED)), policy, make_classifier("gpt2"))
    assert state.critic is None
    trunk = state.policy.model
    assert isinstance(trunk, SharedTrunk)
    assert trunk.policy is policy
    assert trunk.value_head.weight.tolist() == [[0.0] * policy.config.n_embd]


@pytest.mark.parametrize("critic", [{}, SHARED], ids=["separate", "shared"])
def test_a_schedule_takes_the_whole_run(critic: dict[str, Any]) -> None:
    """Linear to 0 over 3 rollouts x 2 epochs x 2 minibatches: the last step has a rate of 0, the first the whole."""
    settings = ppo_settings(eval_every_steps=3, **critic)
    state, environment = ppo_table(settings, optimizer_changes={"final_lr_share": 0.0})
    rates: list[float] = []
    real_step = state.policy.step
    state.policy.step = lambda parts, loss_of: (real_step(parts, loss_of), rates.append(state.policy.lr))[0]  # type: ignore
    list(train_ppo(state, environment, settings))
    assert len(rates) == 12
    assert_near(rates, [1e-2 * (11 - i) / 11 for i in range(12)], 1e-9)


@pytest.fixture(scope="module")
def worldly() -> PreTrainedTokenizerBase:
    return words_tokenizer(" ".join(load_world(WORLD).vocabulary()))


def test_the_gold_judge_rates_what_the_tokens_say(worldly: PreTrainedTokenizerBase) -> None:
    world = load_world(WORLD)
    asked = world.prompts(3, seed=1)
    answers = [world.perfect_answer(text) for text in asked[:2]] + [world.perfect_answer(asked[0])]
    examples = [Example([1], encode_response(worldly, answer)) for answer in answers]
    expected = [world.rate(q, a).gold for q, a in zip(asked, answers, strict=True)]
    prompts = [Prompt((Message("user", text),), "validation") for text in asked]
    judge = gold_judge(world, worldly)
    assert judge is not None
    assert judge(prompts, examples) == expected
