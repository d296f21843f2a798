"""Fresh answers and their labels, from a real model and the world's own rater."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from rlhf.config import Config
from rlhf.data.world import World, load_world
from rlhf.labeling.on_policy import answer_and_label
from rlhf.labeling.sampling import Sampler, make_sampler
from rlhf.models.tiny import make_model, make_tokenizer
from rlhf.models.tokens import decode_response
from rlhf.records import Message, Preference, Prompt
from rlhf.runtime.settings import compose, validate, values_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(ROOT / "data" / "world" / "english.yaml")


@pytest.fixture(scope="module")
def config() -> Config:
    sizes = ["model.tiny.hidden_size=16", "model.tiny.intermediate_size=16", "model.tiny.layers=1"]
    return validate(values_of(compose(ROOT, [*sizes, "data.max_response_tokens=24", "sample.temperature=0.7"])))


@pytest.fixture(scope="module")
def tokenizer(world: World, config: Config) -> PreTrainedTokenizerBase:
    assert config.model.tiny is not None
    return make_tokenizer(world.vocabulary(), config.model.tiny, config.model.max_tokens)


def sampler_of(config: Config, tokenizer: PreTrainedTokenizerBase, seed: int) -> Sampler:
    assert config.model.tiny is not None
    policy = make_model(tokenizer, config.model.tiny, config.model.max_tokens, seed, "cpu")
    return make_sampler(config, tokenizer, {"dpo": policy})


def test_a_sampler_is_what_the_settings_say(config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    sampler = sampler_of(config, tokenizer, 0)
    assert (sampler.responses_per_prompt, sampler.temperature) == (4, 0.7)
    assert (sampler.max_prompt_tokens, sampler.decoding.max_response_tokens) == (128 - 24, 24)
    assert sampler.decoding.eos_id == tokenizer.eos_token_id


def gains_of(preferences: list[Preference], world: World) -> list[float]:
    """How much more the chosen answer is worth in gold; without the pairs of equals."""
    asked = [(p.prompt[0].content, p) for p in preferences]
    gains = [world.rate(question, p.chosen).gold - world.rate(question, p.rejected).gold for question, p in asked]
    return [gain for gain in gains if abs(gain) > 1e-4]


def test_the_pairs_are_of_fresh_answers_in_the_raters_order(
    world: World, config: Config, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Almost without noise, and of two models, each its own answers."""
    prompts = [Prompt((Message("user", text),), "train") for text in world.prompts(6, seed=3)]
    made = [answer_and_label(sampler_of(config, tokenizer, seed), prompts, world, 1e-6, seed=1) for seed in (0, 1)]
    for preferences in made:
        assert {p.prompt for p in preferences} <= {prompt.prompt for prompt in prompts}
        assert {p.split for p in preferences} == {"train"}
        for p in preferences:
            assert p.chosen_token_ids is not None
            assert decode_response(tokenizer, list(p.chosen_token_ids)) == p.chosen
        assert min(gains_of(preferences, world)) > 0
    assert not {p.chosen for p in made[0]} & {p.chosen for p in made[1]}


def test_a_hot_rater_prefers_the_worse_as_often_as_not(
    world: World, config: Config, tokenizer: PreTrainedTokenizerBase
) -> None:
    prompts = [Prompt((Message("user", text),), "train") for text in world.prompts(24, seed=3)]
    gains = gains_of(answer_and_label(sampler_of(config, tokenizer, 0), prompts, world, 1e3, seed=1), world)
    assert len(gains) >= 20
    assert 0.2 < sum(gain < 0 for gain in gains) / len(gains) < 0.8


def texts_of(preferences: list[Preference]) -> list[tuple[str, str]]:
    return [(p.chosen, p.rejected) for p in preferences]


def test_another_seed_draws_other_answers(world: World, config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    """Labels have next to no noise here, so that only the answers can differ."""
    prompts = [Prompt((Message("user", text),), "train") for text in world.prompts(3, seed=3)]
    sampler = sampler_of(config, tokenizer, 0)
    first, again, other = (answer_and_label(sampler, prompts, world, 1e-6, seed) for seed in (1, 1, 2))
    assert first == again
    assert not set(texts_of(first)) & set(texts_of(other))


def test_another_seed_orders_the_same_answers_otherwise(
    world: World, config: Config, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Two models that always give their likeliest answer, and a rater with much noise."""
    prompts = [Prompt((Message("user", text),), "train") for text in world.prompts(12, seed=3)]
    policies = {str(seed): sampler_of(config, tokenizer, seed).policies["dpo"] for seed in (0, 1)}
    sampler = replace(sampler_of(config, tokenizer, 0), policies=policies, temperature=1e-6)
    first, again, other = (texts_of(answer_and_label(sampler, prompts, world, 1e3, seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert [set(pair) for pair in first] == [set(pair) for pair in other]
