"""Architectures that transformers ships, each held to its own padded forward pass with a mask, and to its own `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BloomConfig,
    CohereConfig,
    Ernie4_5Config,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    GraniteConfig,
    JambaConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    OlmoeConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
    SmolLM3Config,
    StableLmConfig,
)

from rlhf.models.batching import Batching
from rlhf.models.forward import logprobs_of, scores_of
from rlhf.models.generation import Decoding, generate
from rlhf.models.policy import load_policy, save_policy
from rlhf.models.reward import load_reward_model, reward_model_from_policy, save_reward_model
from rlhf.models.tokens import Example
from tests.helpers import ROUNDING, assert_near
from tests.models.tiny_models import CONTEXT, PAD, SPREAD, engine_settings, random_examples

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7, 8, 9, 10], [11], [12, 13, 4], [5, 6, 7, 8, 9, 10, 3], [14, 15]]
LIMIT = 12
EXAMPLES = random_examples(7)
WINDOW = 3  # tokens that a layer with a sliding window sees
SHARED: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "initializer_range": SPREAD}
ROTARY = SHARED | {"num_hidden_layers": 3, "intermediate_size": 24, "max_position_embeddings": CONTEXT}
GROUPED = ROTARY | {"num_key_value_heads": 1}
GEMMA = GROUPED | {"head_dim": 8, "sliding_window": WINDOW, "query_pre_attn_scalar": 8}
MIXED_WINDOWS = ["sliding_attention", "full_attention", "sliding_attention"]
GPT2 = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": CONTEXT, "initializer_range": SPREAD}
LINEAR = {
    "num_hidden_layers": 4,
    "head_dim": 8,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
JAMBA = GROUPED | {
    "num_hidden_layers": 4,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "mamba_d_state": 8,
    "mamba_dt_rank": 4,
    "use_mamba_kernels": False,
}
OPT = {"hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "word_embed_proj_dim": 16}

ARCHITECTURES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, GROUPED),
    "llama_tied": (LlamaConfig, GROUPED | {"tie_word_embeddings": True}),
    "gpt2": (GPT2Config, GPT2),  # absolute positions, tied
    "gpt2_untied": (GPT2Config, GPT2 | {"tie_word_embeddings": False}),
    "qwen2": (Qwen2Config, GROUPED),
    "qwen2_tied": (Qwen2Config, GROUPED | {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, GROUPED | {"head_dim": 8}),
    "gpt_neox": (GPTNeoXConfig, ROTARY | {"rotary_pct": 0.25}),  # pythia: a quarter of each head turns
    "gpt_neo": (
        GPTNeoConfig,
        SHARED
        | {"num_layers": 2, "num_heads": 2, "window_size": WINDOW, "attention_types": [[["global", "local"], 1]]}
        | {"max_position_embeddings": CONTEXT},
    ),
    "mistral": (MistralConfig, GROUPED | {"head_dim": 8, "sliding_window": WINDOW}),
    "mixtral": (MixtralConfig, GROUPED | {"num_local_experts": 2}),
    "gemma2": (Gemma2Config, GEMMA),  # capped logits, every other layer with a window
    "gemma3": (Gemma3TextConfig, GEMMA | {"layer_types": MIXED_WINDOWS}),
    "olmo2": (Olmo2Config, GROUPED),
    "phi": (PhiConfig, ROTARY | {"num_key_value_heads": 2, "partial_rotary_factor": 0.5}),
    "phi3": (Phi3Config, ROTARY | {"num_key_value_heads": 2}),
    "opt": (OPTConfig, OPT | {"init_std": SPREAD, "max_position_embeddings": CONTEXT}),  # positions that begin at 2
    "stablelm": (StableLmConfig, GROUPED),
    "smollm3": (SmolLM3Config, GROUPED),
    "bloom": (BloomConfig, {"hidden_size": 16, "n_layer": 3, "n_head": 2, "initializer_range": SPREAD}),  # no positions
    "qwen3_next": (Qwen3NextConfig, GROUPED | LINEAR),  # three of four layers have a state in place of keys and values
    "jamba": (JambaConfig, JAMBA),  # every other layer has one
    "falcon": (FalconConfig, SHARED | {"num_hidden_layers": 3, "max_position_embeddings": CONTEXT}),
    # Of these transformers has no classifier.
    "granite": (GraniteConfig, GROUPED | {"logits_scaling": 4.0, "residual_multiplier": 0.5}),
    "cohere": (CohereConfig, GROUPED),
    "olmoe": (OlmoeConfig, GROUPED | {"num_experts": 2, "num_experts_per_tok": 1}),
    "ernie4_5": (Ernie4_5Config, GROUPED | {"head_dim": 8}),
    "lfm2": (Lfm2Config, GROUPED | {"layer_types": ["conv", "full_attention", "conv"]}),
}


@pytest.fixture(params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Path:
    """A model of this architecture with random weights, as the pipeline writes one."""
    kind, sizes = ARCHITECTURES[request.param]
    special = {"pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(**sizes | special | {"vocab_size": len(tokenizer)}))
    save_policy(model, tokenizer, tmp_path / "policy", LIMIT)
    return tmp_path / "policy"


def padded(model: PreTrainedModel, examples: list[Example], side: str) -> list[Tensor]:
    """(r,) log-probabilities of each response by the model's own forward pass of one padded batch with its mask."""
    rows = [e.prompt_ids + e.response_ids for e in examples]
    width = max(map(len, rows))
    fill = [width - len(row) for row in rows]
    front = fill if side == "left" else [0] * len(rows)
    ids = torch.tensor([[PAD] * a + row + [PAD] * (b - a) for a, row, b in zip(front, rows, fill, strict=True)])
    mask = torch.tensor([[0] * a + [1] * len(row) + [0] * (b - a) for a, row, b in zip(front, rows, fill, strict=True)])
    places = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if model.config.model_type != "bloom" else {}
    with torch.no_grad():
        everything = model(input_ids=ids, attention_mask=mask, **places).logits.log_softmax(-1)
    starts = [a + len(e.prompt_ids) - 1 for a, e in zip(front, examples, strict=True)]
    return [
        torch.stack([everything[i, start + t, token] for t, token in enumerate(examples[i].response_ids)])
        for i, start in enumerate(starts)
    ]


@pytest.mark.parametrize("side", ["left", "right"])
def test_log_probabilities_are_those_of_a_padded_forward_pass_with_a_mask(folder: Path, side: str) -> None:
    stock = AutoModelForCausalLM.from_pretrained(folder).eval()
    ours = logprobs_of(load_policy(folder, CPU, engine_settings()), EXAMPLES, Batching(PAD, 40))
    for mine, theirs in zip(ours, padded(stock, EXAMPLES, side), strict=True):
        assert_near(mine, theirs, ROUNDING["float32"])


def test_greedy_answers_are_those_of_stock_generate_whoever_leaves_first(folder: Path) -> None:
    """The end token is one that these models do say, so that rows leave the batch, each at its own place."""
    policy = load_policy(folder, CPU, engine_settings())
    unended = [r.response_ids for r in generate(policy, PROMPTS, Decoding(-1, PAD, LIMIT), None, seed=0)]
    end = unended[0][4]
    ours = [r.response_ids for r in generate(policy, PROMPTS, Decoding(end, PAD, LIMIT), None, seed=0)]
    stock = AutoModelForCausalLM.from_pretrained(folder).eval()
    for prompt, mine in zip(PROMPTS, ours, strict=True):
        ids = torch.tensor([prompt])
        asked = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": LIMIT}
        theirs = stock.generate(ids, **asked, eos_token_id=end, pad_token_id=PAD)[0, len(prompt) :].tolist()
        assert mine == theirs
    assert len(ours[0]) <= 5


def test_a_reward_model_on_it_scores_as_stock_transformers_read_it(
    folder: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    made = reward_model_from_policy(folder, CPU, engine_settings(), seed=1)
    assert made.score.weight.shape[0] == 1
    save_reward_model(made, tokenizer, tmp_path / "reward")
    ours = scores_of(load_reward_model(tmp_path / "reward", CPU, engine_settings()), EXAMPLES, Batching(PAD, 40))
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").eval()
    with torch.no_grad():
        rows = [torch.tensor([e.prompt_ids + e.response_ids]) for e in EXAMPLES]
        theirs = torch.stack([stock(input_ids=row).logits[0, 0] for row in rows])
    assert_near(ours, theirs, ROUNDING["float32"])
