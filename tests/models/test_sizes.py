"""Sizes counted on the meta device, by real models of the same config: their parameters, their cache, their layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DynamicCache,
    Gemma3TextConfig,
    PretrainedConfig,
    Qwen2Config,
)

from rlhf import config
from rlhf.errors import UserError
from rlhf.models.sizes import Linear, Sizes, classifier_sizes, policy_sizes
from rlhf.models.tiny import make_model
from tests.models.test_architectures import ARCHITECTURES
from tests.models.tiny_models import CONTEXT, tiny_settings, words_tokenizer

VOCABULARY = 30
# falcon has one key for all heads, which its config says in a way of its own; the others have layers with a state instead.
OTHER_CACHES = ("falcon", "qwen3_next", "jamba", "lfm2")


def settings_of(folder: Path, **changes: Any) -> config.Model:
    values = {"name": "local", "source": "local", "path": str(folder), "id": None, "revision": None}
    return config.Model(**values | {"max_tokens": 64, "chat_template": None, "tiny": None} | changes)


def of_kind(name: str, folder: Path) -> tuple[Sizes, PretrainedConfig]:
    """The sizes that are read from a folder with a config alone."""
    kind, sizes = ARCHITECTURES[name]
    made = kind(**sizes | {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2})
    made.architectures = [AutoModelForCausalLM._model_mapping[kind].__name__]
    made.save_pretrained(folder)
    return policy_sizes(settings_of(folder)), made


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_and_cache_are_those_of_the_real_model(name: str, tmp_path: Path) -> None:
    sizes, settings = of_kind(name, tmp_path)
    real = AutoModelForCausalLM.from_config(settings).eval()
    assert sizes.parameters == sum(p.numel() for p in real.parameters())
    cache = DynamicCache(config=settings)
    with torch.no_grad():
        real(input_ids=torch.ones(1, 2, dtype=torch.long), past_key_values=cache, use_cache=True)
    elements = name not in OTHER_CACHES and sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    if name not in OTHER_CACHES:
        assert 2 * sizes.key_values == elements


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "gemma2"])
@pytest.mark.parametrize("layers", [None, 1])
def test_a_reward_model_is_counted_with_its_layers_alone(name: str, layers: int | None, tmp_path: Path) -> None:
    sizes, settings = of_kind(name, tmp_path)
    found = classifier_sizes(settings_of(tmp_path), layers)
    settings.num_labels = 1
    whole = AutoModelForSequenceClassification.from_config(settings)
    dropped = (sizes.layers - (layers or sizes.layers)) * sizes.layer.parameters
    assert found.parameters == sum(p.numel() for p in whole.parameters()) - dropped
    assert found.layers == (layers or 3)


def test_a_llama_is_what_its_config_says(tmp_path: Path) -> None:
    sizes, _ = of_kind("llama", tmp_path)
    hidden, middle, head = 16, 24, 8  # 2 heads, 1 of keys
    assert (sizes.layers, sizes.hidden, sizes.vocabulary, sizes.heads, sizes.context) == (3, hidden, VOCABULARY, 2, 64)
    assert sizes.linears[:7] == (
        Linear("q_proj", hidden, 2 * head),
        Linear("k_proj", hidden, head),
        Linear("v_proj", hidden, head),
        Linear("o_proj", 2 * head, hidden),
        Linear("gate_proj", hidden, middle),
        Linear("up_proj", hidden, middle),
        Linear("down_proj", middle, hidden),
    )
    assert len(sizes.linears) == 3 * 7
    layer = sizes.layer
    assert (layer.outputs, layer.attended, layer.middle, layer.activated) == (112, 16, middle, 2 * middle)
    assert (layer.layer_norms, layer.rms_norms) == (0, 2 * hidden)
    assert layer.parameters == 16 * 16 * 2 + 16 * 8 * 2 + 3 * 16 * 24 + 2 * 16
    assert sizes.parameters == 3 * layer.parameters + 2 * VOCABULARY * hidden + hidden


@pytest.mark.parametrize(
    ("kind", "sizes", "published"),
    [
        (
            Qwen2Config,
            {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24}
            | {"num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
            494_032_768,
        ),
        (
            Gemma3TextConfig,
            {"vocab_size": 262144, "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26}
            | {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "tie_word_embeddings": True},
            999_885_952,
        ),
    ],
    ids=["Qwen2.5-0.5B", "gemma-3-1b-pt"],
)
def test_parameters_are_those_that_users_count_of_the_published_model(
    kind: type[PretrainedConfig], sizes: dict[str, Any], published: int, tmp_path: Path
) -> None:
    kind(**sizes).save_pretrained(tmp_path)
    assert policy_sizes(settings_of(tmp_path)).parameters == published


def test_a_tied_head_is_counted_once(tmp_path: Path) -> None:
    untied, _ = of_kind("llama", tmp_path / "untied")
    tied, _ = of_kind("llama_tied", tmp_path / "tied")
    assert untied.parameters - tied.parameters == VOCABULARY * 16


def test_norms_of_queries_and_keys_go_over_all_their_heads(tmp_path: Path) -> None:
    sizes, _ = of_kind("qwen3", tmp_path)
    assert sizes.layer.rms_norms == 2 * 16 + 2 * 8 + 8


def test_a_tiny_model_has_the_sizes_that_it_will_be_made_with() -> None:
    tiny = tiny_settings()
    other = {"source": "tiny", "path": "conf/model/tiny.yaml", "tiny": tiny.model_dump()}
    sizes = policy_sizes(config.Model(**settings_of(Path()).model_dump() | other))
    tokenizer = words_tokenizer(" ".join(f"word{i}" for i in range(tiny.vocabulary - 6)))
    assert len(tokenizer) == tiny.vocabulary
    real = make_model(tokenizer, tiny, 64, seed=0, device=torch.device("cpu"))
    assert sizes.parameters == sum(p.numel() for p in real.parameters())


def test_the_context_is_bounded_by_the_settings(tmp_path: Path) -> None:
    _, settings = of_kind("llama", tmp_path)
    assert policy_sizes(settings_of(tmp_path, max_tokens=0)).context == settings.max_position_embeddings == CONTEXT


def test_a_hub_model_whose_files_are_in_a_folder_is_read_there(tmp_path: Path) -> None:
    of_kind("llama", tmp_path)
    named = {"source": "hub", "id": "owner/name", "revision": "0" * 40}
    here = config.Model(**settings_of(tmp_path).model_dump() | named)
    assert policy_sizes(here) == policy_sizes(settings_of(tmp_path))


def test_a_folder_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json can be loaded from it"):
        policy_sizes(settings_of(tmp_path))
    with pytest.raises(UserError, match="no such folder"):
        policy_sizes(settings_of(tmp_path / "none"))
