"""The work that `gpu` times: models of the shapes people train, with random weights, and steps of the real loops on them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
)

from rlhf.config import Config
from rlhf.models.adapters import adapt, on_the_same_trunk
from rlhf.models.batching import Batching
from rlhf.models.generation import Decoding
from rlhf.models.policy import without_dropout
from rlhf.models.precision import compute_in
from rlhf.models.tokens import Example
from rlhf.runtime.engine import make_engine
from rlhf.runtime.settings import compose, validate, values_of
from rlhf.training.dpo import PairedExamples, train_dpo, with_reference
from rlhf.training.loop import LoopState, Passes
from rlhf.training.ppo_setup import make_state
from rlhf.training.ppo_state import Environment, PPOState
from rlhf.training.reward import RankedExamples, train_reward
from rlhf.training.sft import train_sft
from rlhf.training.watch import Watch

ROOT = Path(__file__).resolve().parents[1]
PAD, EOS = 0, 1
SPECIAL = 16  # ids below this one stand in no text
SPREAD = 0.02  # of the weights
CONTEXT = 2048
LIGER = False  # set by the command line


@dataclass(frozen=True)
class Shape:
    """A model's sizes, as its config.json has them."""

    family: str
    sizes: dict[str, Any]
    classes: tuple[type[PreTrainedModel], type[PreTrainedModel]]
    config: type[PretrainedConfig]


def _qwen2(hidden: int, layers: int, heads: int, groups: int, intermediate: int, vocabulary: int) -> Shape:
    sizes = _sizes(hidden, layers, heads, groups, intermediate, vocabulary) | {"tie_word_embeddings": True}
    return Shape("Qwen2", sizes, (Qwen2ForCausalLM, Qwen2ForSequenceClassification), Qwen2Config)


def _llama(hidden: int, layers: int, heads: int, groups: int, intermediate: int, vocabulary: int) -> Shape:
    sizes = _sizes(hidden, layers, heads, groups, intermediate, vocabulary) | {"tie_word_embeddings": False}
    return Shape("Llama", sizes, (LlamaForCausalLM, LlamaForSequenceClassification), LlamaConfig)


def _sizes(hidden: int, layers: int, heads: int, groups: int, intermediate: int, vocabulary: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
    }


SHAPES = {
    "tiny": _llama(32, 2, 4, 2, 64, 512),  # for a look without a GPU
    "qwen-0.5b": _qwen2(896, 24, 14, 2, 4864, 151_936),
    "qwen-1.5b": _qwen2(1536, 28, 12, 2, 8960, 151_936),
    "llama-0.5b": _llama(1024, 24, 16, 4, 4096, 32_000),
    "llama-1.2b": _llama(2048, 24, 32, 8, 5632, 32_000),
}


def make_policy(shape: Shape, device: torch.device, precision: str, seed: int = 0) -> PreTrainedModel:
    """A causal language model with weights from N(0, SPREAD)."""
    return _make(shape, 0, device, precision, seed)


def make_classifier(shape: Shape, device: torch.device, precision: str, seed: int = 0) -> PreTrainedModel:
    """A sequence classifier with one label on such a trunk."""
    return _make(shape, 1, device, precision, seed)


def _make(shape: Shape, kind: int, device: torch.device, precision: str, seed: int) -> PreTrainedModel:
    ids = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None, "num_labels": 1}
    sizes = shape.config(
        **shape.sizes, **ids, max_position_embeddings=CONTEXT, initializer_range=SPREAD, attn_implementation="sdpa"
    )
    torch.manual_seed(seed)
    with device:
        model = shape.classes[kind](sizes)
    compute_in(model, precision)
    if LIGER:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        _apply_liger_kernel_to_instance(model=model)
    return without_dropout(model).eval()


def settings_of(*overrides: str) -> Config:
    """conf/ with these changes."""
    return validate(values_of(compose(ROOT, overrides)))


def flops(model: PreTrainedModel, examples: list[Example]) -> int:
    """Of one forward pass: two a weight and token, the head at response tokens alone, and attention's two products, of
    which a causal mask leaves half. A backward pass takes twice as many; what is computed twice counts once."""
    sizes = model.config
    layers, hidden = sizes.num_hidden_layers, sizes.hidden_size
    head = sizes.vocab_size * hidden if model.get_output_embeddings() is not None else 0
    embedded = model.get_input_embeddings().weight.numel()
    body = sum(p.numel() for p in model.base_model.parameters()) - embedded
    lengths = [len(e) for e in examples]
    responses = sum(len(e.response_ids) for e in examples)
    return 2 * body * sum(lengths) + 2 * head * responses + layers * sum(2 * hidden * n * n for n in lengths)


def random_examples(count: int, prompt: tuple[int, int], response: tuple[int, int], vocabulary: int) -> list[Example]:
    """Prompts and responses whose lengths are uniform between these, both included."""
    draws = torch.Generator().manual_seed(count)

    def ids(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high + 1, (), generator=draws))
        return torch.randint(SPECIAL, vocabulary, (length,), generator=draws).tolist()

    return [Example(ids(*prompt), [*ids(*response)[1:], EOS]) for _ in range(count)]


@dataclass(frozen=True)
class Lengths:
    """Of what is learnt from: rows a step, tokens of a prompt and of a response, at least and at most."""

    rows: int
    prompt: tuple[int, int]
    response: tuple[int, int]

    def rows_of(self, steps: int, vocabulary: int) -> list[Example]:
        return random_examples(self.rows * steps, self.prompt, self.response, vocabulary)


@dataclass
class Clock:
    """Seconds by phase, the device's work included."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    def time(self, phase: str, work: Callable[[], Any]) -> Any:
        self.wait()
        start = time.perf_counter()
        done = work()
        self.wait()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start
        return done

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


Steps = tuple[Iterator[dict[str, float]], list[list[Example]]]  # the loop, and what each of its steps learns from


def _passes(rows: int) -> Passes:
    return Passes(epochs=1, rows_per_step=rows, eval_every_steps=1_000_000, seed=0)


def _in_twos(examples: list[Example]) -> list[list[Example]]:
    """The responses of two neighbours, to the prompt of the first."""
    twos = zip(examples[::2], examples[1::2], strict=True)
    return [[one, Example(one.prompt_ids, other.response_ids)] for one, other in twos]


def sft(policy: PreTrainedModel, examples: list[Example], rows: int, settings: Config) -> Steps:
    passes = _passes(rows)
    steps = passes.steps(len(examples))
    adapt(policy, settings.lora, 0, "")
    engine = make_engine(policy, 1e-5, 0.0, steps, settings.optimizer, settings.engine)
    learns = [[examples[i] for i in passes.draw(len(examples), step)] for step in range(steps)]
    return train_sft(LoopState(engine), examples, [], passes, _batching(settings)), learns


def reward(model: PreTrainedModel, examples: list[Example], rows: int, settings: Config) -> Steps:
    """Two responses to each prompt."""
    ranked = [RankedExamples(two, [0, 1]) for two in _in_twos(examples)]
    passes = _passes(rows // 2)
    steps = passes.steps(len(ranked))
    engine = make_engine(model, 1e-5, 0.0, steps, settings.optimizer, settings.engine)
    learns = [[e for i in passes.draw(len(ranked), step) for e in ranked[i].examples] for step in range(steps)]
    return train_reward(LoopState(engine), ranked, [], passes, _batching(settings), 0.0), learns


def dpo(policy: PreTrainedModel, examples: list[Example], rows: int, settings: Config) -> Steps:
    """The reference is asked before the first step, and not again."""
    pairs = [PairedExamples(two, [(0, 1)]) for two in _in_twos(examples)]
    passes = _passes(rows // 2)
    steps = passes.steps(len(pairs))
    known = with_reference(policy, pairs, _batching(settings))
    engine = make_engine(policy, 1e-6, 0.0, steps, settings.optimizer, settings.engine)
    learns = [[e for i in passes.draw(len(pairs), step) for e in pairs[i].examples] for step in range(steps)]
    rows_of = train_dpo(LoopState(engine), known, [], passes, _batching(settings), None, settings.dpo)
    next(rows_of)  # the look before the first step, at nothing
    return rows_of, learns


def _batching(settings: Config) -> Batching:
    return Batching(PAD, settings.engine.tokens_per_micro_batch)


def ppo_world(
    policy: PreTrainedModel, reward_model: PreTrainedModel, prompts: list[list[int]], settings: Config, response: int
) -> tuple[PPOState, Environment]:
    """PPO with four models, on one trunk where adapters learn; nobody watches."""
    if settings.lora.rank:
        reference = on_the_same_trunk(policy)
        setattr(reward_model, reward_model.base_model_prefix, on_the_same_trunk(policy.base_model))
        for model in (policy, reward_model):
            adapt(model, settings.lora, 0, "")
    else:
        reference = copy.deepcopy(policy).requires_grad_(False)
    decoding = Decoding(EOS, PAD, response, settings.engine.responses_at_once)
    watch = Watch(reference, [], 0, decoding, _batching(settings), 1.0, 0)
    state = make_state(settings, policy, reward_model)
    environment = Environment(
        reference, reward_model.requires_grad_(False), prompts, 0, [], decoding, _batching(settings), watch, seed=0
    )
    return state, environment
