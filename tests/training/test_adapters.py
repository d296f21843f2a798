"""PPO and DPO with adapters: four models on one trunk, of which nothing moves but what learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from rlhf.config import Config, Lora
from rlhf.models.adapters import SFT, adapt, has_adapter
from rlhf.models.batching import Batching
from rlhf.models.card import write_reward_model
from rlhf.models.forward import scores_of
from rlhf.models.policy import load_policy_and_reference
from rlhf.models.reward import load_reward_model, load_reward_model_beside, reward_model_from_policy
from rlhf.training.ppo import train_ppo
from rlhf.training.ppo_setup import make_state
from rlhf.training.ppo_state import Environment, PPOState, model_of, policy_of
from tests.helpers import ROUNDING, assert_near
from tests.models.tiny_models import PAD, engine_settings, make_policy, random_examples, words_tokenizer
from tests.training.table import SHARED, all_settings, environment_for, ppo_settings

CPU = torch.device("cpu")
LORA = Lora(rank=4, alpha=8.0, targets=[])
EXAMPLES = random_examples(6)
CRITICS = pytest.mark.parametrize("critic", [{}, {"critic_from": "policy"}, SHARED], ids=["reward", "policy", "shared"])


@pytest.fixture
def artifacts(tmp_path: Path, architecture: str, precision: str) -> Path:
    """An SFT model, and a reward model that is an adapter of it."""
    tokenizer = words_tokenizer(" ".join("abcdefghijklmnopq"))
    make_policy(architecture).save_pretrained(tmp_path / "sft")
    engine = engine_settings(dtype=precision)
    reward_model = reward_model_from_policy(tmp_path / "sft", CPU, engine, seed=1)
    adapt(reward_model, LORA, 2, SFT)
    with torch.no_grad():
        for name, weight in reward_model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.3)
    reward_model.config.reward_center = 0.5
    write_reward_model(reward_model, tokenizer, tmp_path / "reward", "about")
    return tmp_path


def four_models(artifacts: Path, precision: str, critic: dict[str, Any]) -> tuple[PPOState, Environment, Config]:
    engine = engine_settings(dtype=precision)
    policy, reference = load_policy_and_reference(artifacts / "sft", CPU, engine, LORA, 0, SFT)
    reward_model = load_reward_model_beside(reference, artifacts / "reward", CPU, engine, LORA)
    settings = all_settings(ppo_settings(**critic)).model_copy(update={"lora": LORA})
    environment = environment_for(policy, reward_model, reference=reference)
    return make_state(settings, policy, reward_model), environment, settings


def bytes_of(*models: torch.nn.Module) -> int:
    """Of all their weights, each once."""
    tensors = {weight.data_ptr(): weight for model in models for weight in model.parameters()}
    return sum(weight.numel() * weight.element_size() for weight in tensors.values())


def trunk(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: w.detach().clone() for name, w in model.named_parameters() if "lora_" not in name and "score" not in name}


@CRITICS
def test_four_models_cost_one_trunk(artifacts: Path, precision: str, critic: dict[str, Any]) -> None:
    state, environment, _ = four_models(artifacts, precision, critic)
    models = [state.policy.model, environment.reference, environment.reward_model]
    models += [state.critic.model] if state.critic else []
    small = sum(w.numel() * w.element_size() for m in models for n, w in m.named_parameters() if "lora_" in n or "head" in n)
    assert bytes_of(*models) < bytes_of(environment.reference) + small + 1000  # scalar heads
    learns = [w for engine in (state.policy, state.critic) if engine for w in engine.model.parameters() if w.requires_grad]
    assert len({id(w) for w in learns}) == len(learns)


def test_the_reward_model_says_what_its_own_file_says(artifacts: Path, precision: str) -> None:
    """To the rounding of weights that an adapter was merged into."""
    _, environment, _ = four_models(artifacts, precision, {})
    alone = load_reward_model(artifacts / "reward", CPU, engine_settings(dtype=precision))
    assert has_adapter(environment.reward_model)
    assert not has_adapter(alone)
    ours, theirs = (scores_of(model, EXAMPLES, Batching(PAD, 64)) for model in (environment.reward_model, alone))
    assert_near(ours, theirs, {"float32": ROUNDING["float32"], "bfloat16": 0.1}[precision])
    assert float(ours.abs().max()) > 0.5


@CRITICS
def test_adapters_learn_and_all_else_stands_still(artifacts: Path, precision: str, critic: dict[str, Any]) -> None:
    state, environment, settings = four_models(artifacts, precision, critic)
    before = trunk(environment.reference)
    judged = scores_of(environment.reward_model, EXAMPLES, environment.batching)
    adapter = [w for w in policy_of(state).parameters() if w.requires_grad]
    then = [w.detach().clone() for w in adapter]
    rows = list(train_ppo(state, environment, settings.ppo))
    assert rows[0]["validation_kl_per_response"] == rows[1]["kl_per_response"] == 0.0
    assert rows[2]["kl_per_response"] != 0.0
    after = trunk(environment.reference)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert torch.equal(scores_of(environment.reward_model, EXAMPLES, environment.batching), judged)
    assert not any(torch.equal(now, old) for now, old in zip(adapter, then, strict=True))


@pytest.mark.parametrize("critic", [{}, {"critic_from": "policy"}], ids=["reward", "policy"])
def test_a_critic_starts_as_the_reward_model_or_with_a_head_of_zeros(
    artifacts: Path, precision: str, critic: dict[str, Any]
) -> None:
    state, environment, _ = four_models(artifacts, precision, critic)
    assert state.critic is not None
    said = scores_of(model_of(state.critic), EXAMPLES, environment.batching)
    expected = scores_of(environment.reward_model, EXAMPLES, environment.batching)
    assert torch.equal(said, torch.zeros_like(expected) if critic else expected)


@pytest.mark.parametrize("precision", ["float32"])
def test_a_reward_model_that_is_no_adapter_keeps_a_trunk_of_its_own(artifacts: Path, precision: str) -> None:
    engine = engine_settings(dtype=precision)
    _, reference = load_policy_and_reference(artifacts / "sft", CPU, engine, LORA, 0, SFT)
    plain = load_reward_model(artifacts / "reward", CPU, engine)
    plain.save_pretrained(artifacts / "plain")
    found = load_reward_model_beside(reference, artifacts / "plain", CPU, engine, LORA)
    assert not has_adapter(found)
    state = make_state(all_settings(ppo_settings()).model_copy(update={"lora": LORA}), make_policy("llama"), found)
    assert state.critic is not None
    assert has_adapter(state.critic.model)
    learns = sum(w.numel() for w in state.critic.model.parameters() if w.requires_grad)
    assert 0 < learns < sum(w.numel() for w in found.parameters())
