"""Two tiny models with random weights, a reward model, and an exam of a few prompts of the world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedModel

from rlhf.config import Config, Evaluate
from rlhf.data.world import World, load_world
from rlhf.evaluation.answers import SAMPLED, Answers, Contestant
from rlhf.evaluation.contest import about_the_exam, best_of_n, contest, metrics_of, pool_of, yardsticks_of
from rlhf.evaluation.exam import Exam, Judges, set_exam
from rlhf.evaluation.figures import Yardstick
from rlhf.evaluation.raters import by_world
from rlhf.models.tiny import make_tokenizer
from rlhf.models.tokens import PreTrainedTokenizerBase
from rlhf.records import Demonstration, Message, Prompt
from rlhf.runtime.settings import compose, validate, values_of

ROOT = Path(__file__).parents[2]
PROMPTS, RESPONSE_TOKENS = 12, 10
SEED = 11


@dataclass(frozen=True)
class Table:
    """Everything an evaluation needs, on one table."""

    exam: Exam
    judges: Judges
    policies: dict[str, Callable[[], PreTrainedModel]]
    settings: Evaluate


@pytest.fixture(scope="session")
def world() -> World:
    return load_world(ROOT / "data" / "world" / "english.yaml")


@pytest.fixture(scope="session")
def config() -> Config:
    changes = [f"data.max_response_tokens={RESPONSE_TOKENS}", "model.max_tokens=64"]
    evaluation = [
        "best_of=3",
        "best_of_up_to=5",
        "gold_best_of=5",
        "gold_best_of_prompts=4",
        "bootstrap_samples=50",
        "shown_prompts=3",
    ]
    return validate(values_of(compose(ROOT, [*changes, *(f"evaluate.{change}" for change in evaluation)])))


@pytest.fixture(scope="session")
def tokenizer(world: World, config: Config) -> PreTrainedTokenizerBase:
    return make_tokenizer(world.vocabulary(), config.model.tiny, config.model.max_tokens)


def tiny(tokenizer: PreTrainedTokenizerBase, kind: type[PreTrainedModel], seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    sizes = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(sizes).eval()


@pytest.fixture(scope="session")
def asked(world: World) -> list[Prompt]:
    return [Prompt((Message("user", text),), "test") for text in world.prompts(PROMPTS, seed=1)]


@pytest.fixture(scope="session")
def table(world: World, config: Config, tokenizer: PreTrainedTokenizerBase, asked: list[Prompt]) -> Table:
    told = world.demonstrations([prompt.prompt[0].content for prompt in asked[:-2]], PROMPTS, seed=2)
    demonstrations = [Demonstration((Message("user", question),), answer, "test") for question, answer in told]
    sft, other = tiny(tokenizer, LlamaForCausalLM, 0), tiny(tokenizer, LlamaForCausalLM, 1)
    return Table(
        exam=set_exam(asked, demonstrations, tokenizer, 64, config, world),
        judges=Judges(sft, tiny(tokenizer, LlamaForSequenceClassification, 2), by_world(world)),
        policies={"base": lambda: other, "sft": lambda: sft},
        settings=config.evaluate,
    )


@pytest.fixture(scope="session")
def yardsticks(table: Table) -> dict[str, Yardstick]:
    return yardsticks_of(table.exam, table.judges, table.settings, SEED)


@pytest.fixture(scope="session")
def pool(table: Table, yardsticks: dict[str, Yardstick]) -> list[Answers]:
    return pool_of(table.exam, table.judges, yardsticks[SAMPLED], table.settings.best_of_up_to, SEED)


@pytest.fixture(scope="session")
def contestants(table: Table, yardsticks: dict[str, Yardstick], pool: list[Answers]) -> list[Contestant]:
    return everybody(table, table.judges, yardsticks, pool)


def everybody(table: Table, judges: Judges, yardsticks: dict[str, Yardstick], pool: list[Answers]) -> list[Contestant]:
    best = best_of_n(pool, table.exam, judges, yardsticks, table.settings.best_of, SEED)
    return [*contest(table.policies, table.exam, judges, yardsticks, SEED), best]


@pytest.fixture(scope="session")
def metrics(table: Table, yardsticks: dict[str, Yardstick], contestants: list[Contestant]) -> dict[str, Any]:
    about = about_the_exam(contestants, table.exam, table.judges, yardsticks[SAMPLED], table.settings, SEED)
    return metrics_of(contestants, about)


def of(contestants: list[Contestant], model: str, decoding: str = SAMPLED) -> Contestant:
    return next(c for c in contestants if (c.model, c.decoding) == (model, decoding))
