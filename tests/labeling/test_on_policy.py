"""Fresh answers and their labels, from a real model and the world's own rater."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from rlhf.config import Config
from rlhf.data.world import World, load_world
from rlhf.labeling.on_policy import answer_and_label
from rlhf.labeling.sampling import Sampler, make_sampler
from rlhf.models.tiny import make_model, make_tokenizer
from rlhf.models.tokens import decode_response
from rlhf.records import Message, Prompt
from rlhf.runtime.settings import compose, validate, values_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(ROOT / "data" / "world" / "english.yaml")


@pytest.fixture(scope="module")
def config() -> Config:
    sizes = ["model.tiny.hidden_size=16", "model.tiny.intermediate_size=16", "model.tiny.layers=1"]
    return validate(values_of(compose(ROOT, [*sizes, "data.max_response_tokens=8", "sample.temperature=0.7"])))


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
    assert (sampler.max_prompt_tokens, sampler.decoding.max_response_tokens) == (128 - 8, 8)
    assert sampler.decoding.eos_id == tokenizer.eos_token_id


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
            question = p.prompt[0].content
            assert world.rate(question, p.chosen).gold >= world.rate(question, p.rejected).gold - 1e-4
            assert p.chosen_token_ids is not None
            assert decode_response(tokenizer, list(p.chosen_token_ids)) == p.chosen
    assert not {p.chosen for p in made[0]} & {p.chosen for p in made[1]}


def test_seeds_and_the_policy_of_the_moment_decide(world: World, config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = [Prompt((Message("user", text),), "train") for text in world.prompts(3, seed=3)]
    sampler = sampler_of(config, tokenizer, 0)
    first, again, other = (answer_and_label(sampler, prompts, world, 0.5, seed) for seed in (1, 1, 2))
    assert first == again != other
