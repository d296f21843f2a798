"""Classifiers of decoders for which transformers has none: the same trunk, a head read by hand, files that read again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertGenerationConfig,
    Cohere2Config,
    CpmAntConfig,
    Emu3Config,
    Gemma4TextConfig,
    Glm4MoeConfig,
    MarianConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3_5MoeTextConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from rlhf import config
from rlhf.errors import UserError
from rlhf.models.adapters import adapt
from rlhf.models.batching import Batching
from rlhf.models.classifiers import check_classifier
from rlhf.models.folder import check_reward_model
from rlhf.models.forward import response_scores, scores_of, values_of
from rlhf.models.generation import check_cache
from rlhf.models.policy import load_policy, save_policy
from rlhf.models.reward import (
    critic_from_reward_model,
    load_reward_model,
    reward_model_from_policy,
    save_reward_model,
    start_from_policy,
)
from rlhf.models.tokens import Example, collate
from tests.helpers import ROUNDING, assert_near
from tests.models.test_architectures import ARCHITECTURES, GROUPED, LINEAR
from tests.models.tiny_models import EOS, NO_ADAPTER, PAD, VOCABULARY, engine_settings, random_examples

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = random_examples(7)
ALONE, TOGETHER = Batching(PAD, 1), Batching(PAD, 10_000)
EXPERTS = {"n_routed_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 24, "first_k_dense_replace": 1}
GEMMA4 = {
    "head_dim": 8,
    "global_head_dim": 8,
    "num_hidden_layers": 2,
    "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": 64,
    "num_kv_shared_layers": 0,
    "layer_types": ["sliding_attention", "full_attention"],
}
MADE = {name: ARCHITECTURES[name] for name in ("granite", "cohere", "olmoe", "ernie4_5", "lfm2")} | {
    "cohere2": (Cohere2Config, GROUPED | {"sliding_window": 3}),
    "glm4_moe": (Glm4MoeConfig, GROUPED | EXPERTS | {"head_dim": 8}),
    "gemma4_text": (Gemma4TextConfig, GROUPED | GEMMA4),
    "qwen3_5_moe_text": (Qwen3_5MoeTextConfig, GROUPED | LINEAR),
}


@pytest.fixture(params=MADE)
def folder(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Path:
    """A policy with random weights."""
    kind, sizes = MADE[request.param]
    special = {"pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(**sizes | special | {"vocab_size": len(tokenizer)}))
    save_policy(model, tokenizer, tmp_path / "policy", 9)
    return tmp_path / "policy"


@pytest.fixture
def reward_model(folder: Path) -> PreTrainedModel:
    return reward_model_from_policy(folder, CPU, engine_settings(), seed=1)


def by_hand(folder: Path, head: Tensor) -> Tensor:
    """(N,) the head times what stock transformers' bare trunk says after the last token of each row, alone."""
    trunk = AutoModel.from_pretrained(folder).eval()
    rows = [torch.tensor([e.prompt_ids + e.response_ids]) for e in EXAMPLES]
    with torch.no_grad():
        return torch.stack([trunk(input_ids=row, use_cache=False).last_hidden_state[0, -1] @ head[0] for row in rows])


def test_a_score_is_the_head_on_what_the_trunk_says_after_the_last_token(
    folder: Path, reward_model: PreTrainedModel
) -> None:
    expected = by_hand(folder, reward_model.score.weight)
    assert expected.std() > 0.1
    for batching in (ALONE, TOGETHER):
        assert_near(scores_of(reward_model, EXAMPLES, batching), expected, ROUNDING["float32"])


def test_what_is_saved_scores_the_same_by_our_reading_and_by_the_forward_pass_of_the_class_with_a_mask(
    folder: Path, reward_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    save_reward_model(reward_model, tokenizer, tmp_path / "reward")
    assert check_reward_model(tmp_path / "reward")
    again = load_reward_model(tmp_path / "reward", CPU, engine_settings())
    expected = scores_of(reward_model, EXAMPLES, TOGETHER)
    assert torch.equal(scores_of(again, EXAMPLES, TOGETHER), expected)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").eval()
    rows = [e.prompt_ids + e.response_ids for e in EXAMPLES]
    width = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    with torch.no_grad():
        assert_near(stock(input_ids=ids, attention_mask=ids != PAD).logits[:, 0], expected, ROUNDING["float32"])


def test_every_part_of_the_trunk_learns_from_a_score_that_depends_on_it(reward_model: PreTrainedModel) -> None:
    response_scores(reward_model, collate(EXAMPLES, PAD)).sum().backward()
    moved = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in reward_model.parameters()]
    assert reward_model.get_input_embeddings().weight.grad is not None
    assert sum(moved) / len(moved) > 0.8, "all but a router's bias and experts that no token went to"


def test_an_adapter_goes_in_and_alone_learns_with_the_head(reward_model: PreTrainedModel) -> None:
    before = scores_of(reward_model, EXAMPLES, TOGETHER)
    adapt(reward_model, config.Lora(rank=2, alpha=4.0, targets=[]), 0, "base")
    assert torch.equal(scores_of(reward_model, EXAMPLES, TOGETHER), before)
    learns = {name for name, weight in reward_model.named_parameters() if weight.requires_grad}
    assert all("lora_" in name or name.startswith("score.") for name in learns)
    response_scores(reward_model, collate(EXAMPLES, PAD)).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for n, p in reward_model.named_parameters() if "lora_B" in n)


def test_a_critic_says_the_score_after_the_last_token_and_nothing_on_the_policys_trunk(
    folder: Path, reward_model: PreTrainedModel
) -> None:
    critic = critic_from_reward_model(reward_model, NO_ADAPTER, seed=0)
    asked_once_more = [Example(e.prompt_ids, [*e.response_ids, EOS]) for e in EXAMPLES]
    last = torch.stack([row[-1] for row in values_of(critic, asked_once_more, TOGETHER)])
    assert_near(last, scores_of(reward_model, EXAMPLES, TOGETHER), ROUNDING["float32"])
    policy = load_policy(folder, CPU, engine_settings())
    start_from_policy(critic, policy)
    assert all(bool((row == 0).all()) for row in values_of(critic, EXAMPLES, TOGETHER))
    assert all(
        torch.equal(a, b) for a, b in zip(critic.base_model.parameters(), policy.base_model.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    "settings",
    [
        BertGenerationConfig(vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=1, num_attention_heads=2),
        CpmAntConfig(vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, dim_head=4, dim_ff=8),
        MarianConfig(d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2),
        Emu3Config(),
    ],
    ids=["reads both ways", "reads both ways with a mask of its own", "half of another model", "text is a part of it"],
)
def test_what_is_no_decoder_of_text_is_refused(settings: PretrainedConfig) -> None:
    with pytest.raises(UserError, match=f"^here: transformers has no sequence .* architecture {settings.model_type}, nor"):
        check_classifier("here", settings)


# --- how many architectures there are ------------------------------------------------------------------------------------

TWO_LAYERS = ({"num_hidden_layers": 2}, {"n_layer": 2}, {})  # under the first name that a config has and takes
WITHOUT_DEFAULTS: dict[str, dict[str, Any]] = {  # what every published config of the kind says, and its class does not
    "dots1": {"num_hidden_layers": 2, "n_routed_experts": 2, "n_shared_experts": 1},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "lfm2_moe": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
    "ministral": {"head_dim": 8},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "qwen4_exp_text": {"num_hidden_layers": 2, "head_dim": 8, "num_key_value_heads": 2, "num_attention_heads": 2},
    "dbrx": {"attn_config": {"rope_theta": 1e4}},
}


def can_be_policy_and_reward_model(kind: type[PretrainedConfig]) -> bool:
    own = WITHOUT_DEFAULTS.get(kind.model_type)
    for sizes in TWO_LAYERS if own is None else (own,):
        try:
            settings = kind(**sizes)
            with torch.device("meta"):
                policy = AutoModelForCausalLM.from_config(settings)
            check_classifier("", settings)
            check_cache("", policy)
        except UserError:
            return False
        except Exception:  # a name that it does not know, or layers that do not fit the rest
            continue
        return True
    return False


@pytest.mark.slow
def test_the_documentation_says_how_many_of_the_installed_architectures_there_are() -> None:
    kinds = list(MODEL_FOR_CAUSAL_LM_MAPPING)
    able = [kind.model_type for kind in kinds if can_be_policy_and_reward_model(kind)]
    own = sum(name in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES for name in able)
    said = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    found = re.search(r"Of the (\d+) causal architectures of transformers \S+ (\d+) can be [^(]*\((\d+) [^)]* (\d+) ", said)
    assert found
    assert [int(number) for number in found.groups()] == [len(kinds), len(able), own, len(able) - own]
