"""Run by a test in a process of its own: DeepSpeed's four stages beside plain torch. Prints one line of JSON."""

from __future__ import annotations

import io
import json
import math
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from rlhf.errors import UserError
from rlhf.models.batching import Batching
from rlhf.models.policy import save_policy
from rlhf.runtime.engine import Engine, make_engine, zero
from rlhf.training.loop import LoopState, Passes
from rlhf.training.ppo import train_ppo
from rlhf.training.ppo_setup import make_state
from rlhf.training.ppo_state import model_of, policy_of
from rlhf.training.sft import train_sft
from tests.models.tiny_models import PAD, make_classifier, make_policy, random_examples, words_tokenizer
from tests.training.table import SHARED, all_settings, engine_settings, environment_for, optimizer, ppo_settings, step

# GPT-2's key biases have no gradient but rounding: a large epsilon keeps Adam from making a step of it.
ADAMW = optimizer(final_lr_share=0.1, weight_decay=0.01, max_grad_norm=0.5, eps=1e-4)
EXAMPLES = random_examples(12)
STEPS = 6


def whole(model: nn.Module, engine: Engine | None = None) -> dict[str, Tensor]:
    """engine: that of the model, which may have its weights in parts."""
    with engine.whole() if engine else nullcontext():
        return {name: value.detach().clone() for name, value in model.state_dict().items()}


def distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def engine_of(model: nn.Module, name: str) -> Engine:
    return make_engine(model, 1e-2, 0.2, STEPS, ADAMW, engine_settings(name=name))


def learn(state: LoopState, steps: int) -> list[dict[str, float]]:
    """Each step in several micro-batches of unequal lengths."""
    passes = Passes(epochs=2, rows_per_step=4, eval_every_steps=2, seed=3)
    rows = train_sft(state, EXAMPLES, EXAMPLES[:3], passes, Batching(PAD, 20))
    return [next(rows) for _ in range(steps)]


def resume(architecture: str, stage: int) -> LoopState:
    first = LoopState(engine_of(make_policy(architecture), f"zero{stage}"))
    learn(first, 3)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    second = LoopState(engine_of(make_policy(architecture), f"zero{stage}"))
    second.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    learn(second, 3)
    return second


def refuses_nan(stage: int) -> bool:
    """The message, and weights as they were."""
    model = make_policy("llama")
    engine = engine_of(model, f"zero{stage}")
    before = whole(model, engine)
    embedding = model.get_input_embeddings()
    try:
        step(engine, [1.0, math.nan], lambda factor: embedding(torch.tensor([5, 6])).sum() * factor)
    except UserError:
        return distance(whole(model, engine), before) == 0.0
    return False


@cache
def sft_rows(name: str, architecture: str) -> tuple[list[dict[str, float]], Engine]:
    engine = engine_of(make_policy(architecture), name)
    return learn(LoopState(engine), STEPS), engine


@cache
def ppo_rows(name: str, critic: str) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Two engines in one process, or one on a shared trunk; generation and scoring between their steps. The policy that
    stays is the one after the first of three."""
    stop = {"steps": 3, "kl_budget": 0.0, "plateau_evaluations": 0}
    changes = {"ptx_coef": 0.1, "stop": stop, "keep_best_by": "validation_gold_score"}
    settings = ppo_settings(**changes, **(SHARED if critic == "shared" else {}))
    policy, reward_model = make_policy("llama"), make_classifier("llama", seed=1)
    verdicts = iter([1.0, 3.0, 2.0, 0.5])
    environment = environment_for(policy, reward_model)
    environment = replace(environment, watch=replace(environment.watch, judge=lambda _: [next(verdicts)]))
    engines = {"engine": engine_settings(name=name)}
    state = make_state(all_settings(settings).model_copy(update=engines), policy, reward_model)
    rows = list(train_ppo(state, environment, settings))
    assert state.kept is not None
    assert state.kept.step == 1
    return rows, whole(policy_of(state), state.policy)


def saved(engine: Engine) -> dict[str, Tensor]:
    """What stock transformers read from the directory."""
    tokenizer = words_tokenizer(" ".join("abcdefghijklmnopq"))
    with tempfile.TemporaryDirectory() as folder, engine.whole():
        save_policy(model_of(engine), tokenizer, Path(folder), 8)
        return whole(AutoModelForCausalLM.from_pretrained(folder))


def compare(stage: int) -> dict[str, Any]:
    found: dict[str, Any] = {"refuses_nan": refuses_nan(stage)}
    for architecture in ("llama", "gpt2"):
        expected, theirs = sft_rows("single", architecture)
        rows, engine = sft_rows(f"zero{stage}", architecture)
        weights, goes_on = whole(engine.model, engine), resume(architecture, stage).engine
        found[architecture] = {
            "rows": [expected, rows],
            "weights": distance(weights, whole(theirs.model)),
            "resumed": distance(whole(goes_on.model, goes_on), weights),
            "saved": distance(saved(engine), weights),
        }
    for critic in ("separate", "shared"):
        (expected, weights), (rows, ours) = ppo_rows("single", critic), ppo_rows(f"zero{stage}", critic)
        found[critic] = {"rows": [expected, rows], "weights": distance(ours, weights)}
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    zero.SMALL = 0  # or nothing here would be in parts
    print("FOUND " + json.dumps({stage: compare(int(stage)) for stage in sys.argv[1:]}))
