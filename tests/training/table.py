"""What the loops need, small and real: settings, prompts, tiny models with fixed weights, and a reward model with taste."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedModel

from rlhf.config import DPO, PPO, Config, Optimizer
from rlhf.models.batching import Batching
from rlhf.models.generation import Decoding
from rlhf.runtime.engine import Engine, TorchEngine, make_engine
from rlhf.runtime.settings import compose, validate, values_of
from rlhf.training.ppo import sample, train_ppo
from rlhf.training.ppo_setup import make_state
from rlhf.training.ppo_state import Environment, PPOState, policy_of
from rlhf.training.rollout import Rollout
from rlhf.training.watch import Watch
from tests.models.tiny_models import (
    EOS,
    PAD,
    TOKENS,
    ends_often,
    engine_settings,
    make_classifier,
    make_policy,
    random_examples,
)

ROOT = Path(__file__).parents[2]
PPO_FOR_TESTS: dict[str, Any] = {
    "stop": {"steps": 3, "kl_budget": 0.0, "plateau_evaluations": 0},
    "responses_per_step": 8,
    "responses_per_minibatch": 4,
    "responses_per_prompt": 1,
    "ppo_epochs": 2,
    "epoch_kl_limit": 0.0,
    "kl_in": "reward",
    "advantage": "gae",
    "weight": "advantage",
    "critic_from": "reward_model",
    "reward_from": "reward_model",
    "score_centre": False,
    "score_scale": False,
    "score_clip": 0.0,
    "kl_ctl": 0.1,
    "kl_target": 0.0,
    "kl_horizon": 100,
    "clip_range": 0.2,
    "value_clip": 0.2,
    "gamma": 1.0,
    "lam": 0.95,
    "whiten_advantages": True,
    "critic": "separate",
    "critic_target": "gae",
    "critic_warmup_steps": 0,
    "w_c": None,
    "ptx_coef": 0.0,
    "missing_end_score": -1.0,
    "temperature": 1.0,
    "eval_every_steps": 1,
    "eval_prompts": 4,
    "shown_prompts": 2,
    "keep_every": 0,
    "keep_best_by": None,
    "lr": 1e-2,
    "critic_lr": 1e-2,
    "warmup_share": 0.0,
}
OFTEN = {"llama": 3.5, "gpt2": 1.0}  # with these about half of the first 8 responses end, and their lengths are unequal
SHARED = {"critic": "shared", "w_c": 0.5}
RLOO = {"advantage": "rloo", "critic": "none", "responses_per_prompt": 4, "whiten_advantages": False}
GRPO = RLOO | {"advantage": "grpo", "kl_in": "loss"}
CRITICS = pytest.mark.parametrize("critic", [{}, SHARED], ids=["separate", "shared"])
METHODS = pytest.mark.parametrize("critic", [{}, SHARED, RLOO, GRPO], ids=["separate", "shared", "rloo", "grpo"])


def optimizer(**changes: Any) -> Optimizer:
    settings = {
        "schedule": "linear",
        "final_lr_share": 1.0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "beta1": 0.9,
        "beta2": 0.95,
        "eps": 1e-8,
        "bits": 32,
    }
    return Optimizer(**settings | changes)


# So large an epsilon makes AdamW plain gradient descent: it cannot blow the last bits of a gradient up into a step.
STEADY = {"eps": 1e3, "max_grad_norm": 1e9}


def engine_for(model: nn.Module, lr: float = 1e-2, steps: int = 6, **changes: Any) -> TorchEngine:
    engine = make_engine(model, lr, 0.0, steps, optimizer(**changes), engine_settings())
    assert isinstance(engine, TorchEngine)
    return engine


@cache
def _composed() -> Config:
    return validate(values_of(compose(ROOT)))


def ppo_settings(**changes: Any) -> PPO:
    return PPO(**PPO_FOR_TESTS | changes)


def stop(**changes: float) -> dict[str, Any]:
    """The rules by which a run ends, none but the number of steps unless it is asked for."""
    return {"stop": {"steps": 6, "kl_budget": 0.0, "plateau_evaluations": 0} | changes}


def run(state: PPOState, environment: Environment, settings: PPO) -> list[dict[str, float]]:
    return list(train_ppo(state, environment, settings))


def dpo_settings(**changes: Any) -> DPO:
    return DPO(**_composed().dpo.model_dump() | changes)


def all_settings(ppo: PPO, **optimizer_changes: Any) -> Config:
    """Every other section is the committed one; these tests use none of what it holds but names."""
    ours = {"ppo": ppo, "optimizer": optimizer(**optimizer_changes), "engine": engine_settings()}
    return _composed().model_copy(update=ours)


def environment_for(
    policy: PreTrainedModel,
    reward_model: PreTrainedModel,
    batching: Batching = Batching(PAD, TOKENS),  # noqa: B008, frozen
    decoding: Decoding = Decoding(EOS, PAD, 6),  # noqa: B008, frozen
    watched: list[list[int]] | None = None,
    temperature: float = 1.0,
    **changes: Any,
) -> Environment:
    reference = copy.deepcopy(policy).requires_grad_(False)
    watched = watched or [e.prompt_ids for e in random_examples(4, seed=2)]
    whole: dict[str, Any] = {
        "reference": reference,
        "reward_model": reward_model.requires_grad_(False),
        "prompts": [e.prompt_ids for e in random_examples(12, seed=1)],
        "truncated_prompts": 0,
        "demonstrations": random_examples(10, seed=3),
        "decoding": decoding,
        "batching": batching,
        "watch": Watch(reference, watched, 0, decoding, batching, temperature, seed=6),
        "seed": 5,
    }
    return Environment(**whole | changes)


def ppo_table(
    ppo: PPO,
    architecture: str = "llama",
    precision: str = "float32",
    optimizer_changes: dict[str, Any] | None = None,
    **changes: Any,
) -> tuple[PPOState, Environment]:
    policy = ends_often(make_policy(architecture, seed=0, precision=precision), OFTEN[architecture])
    reward_model = make_classifier(architecture, seed=1, precision=precision)
    environment = environment_for(policy, reward_model, temperature=ppo.temperature, **changes)
    return make_state(all_settings(ppo, **optimizer_changes or {}), policy, reward_model), environment


def leave_the_reference(policy: PreTrainedModel) -> None:
    """Every weight moves a little, so that the KL is not 0."""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.05)


def steps_of(engine: TorchEngine) -> list[list[Any]]:
    """The micro-batches of each step that the engine makes from now on."""
    seen: list[list[Any]] = []
    real = engine.step
    engine.step = lambda parts, loss_of: (seen.append(list(parts)), real(parts, loss_of))[1]  # type: ignore[method-assign]
    return seen


def a_rollout(settings: PPO, architecture: str = "llama", precision: str = "float32", **changes: Any) -> Rollout:
    """Of a policy that has left its reference."""
    state, environment = ppo_table(settings, architecture, precision, **changes)
    leave_the_reference(policy_of(state))
    rollout = sample(state, environment, settings)
    assert 0 < int(rollout.ended.sum()) < len(rollout.examples)
    assert not rollout.response_mask.all()
    return rollout


def taste_for(token: int, size: int) -> PreTrainedModel:
    """A real classifier that reads the share of one token in the text: attention without a query is a mean."""
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=size,
            hidden_size=size,
            intermediate_size=4,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            max_position_embeddings=64,
            num_labels=1,
            pad_token_id=PAD,
            bos_token_id=None,
            eos_token_id=EOS,
        )
    ).eval()
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        for matrix in (attention.q_proj, attention.k_proj, model.model.layers[0].mlp.down_proj):
            matrix.weight.zero_()
        for matrix in (attention.v_proj, attention.o_proj):
            matrix.weight.copy_(torch.eye(size))
        model.get_input_embeddings().weight.copy_(torch.eye(size))
        model.score.weight.zero_()
        model.score.weight[0, token] = 1.0
    return model


def step(engine: Engine, parts: Sequence[Any], loss_of: Callable[[Any], Tensor]) -> float:
    """One step on losses of which there is nothing else to tell; the gradient's norm."""
    return engine.step(parts, lambda part: (loss_of(part), None)).norm


def learned(engine: TorchEngine) -> Tensor:
    """What an engine has learned, in one row: the float32 masters of weights that the model rounds."""
    return torch.cat([p.double().flatten() for p in engine.state_dict()["masters"].values()])


def weights(model: nn.Module) -> Tensor:
    """Every parameter in one row, a copy."""
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])
