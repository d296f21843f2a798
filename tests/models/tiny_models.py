"""Real transformers models small enough to compute in a blink, one of each kind of position, and one known by heart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf import config
from rlhf.models.precision import compute_in
from rlhf.models.tiny import make_tokenizer
from rlhf.models.tokens import Example

PAD, EOS = 0, 2  # the ids of `<pad>` and `</s>` in a tokenizer of our own
VOCABULARY = 23
SPREAD = 0.4  # weights from N(0, SPREAD): distributions far from uniform
CONTEXT = 128
NO_ADAPTER = config.Lora(rank=0, alpha=32.0, targets=[])
TOKENS = 64  # of a micro-batch, unless a test is about them

Maker = Callable[..., PreTrainedModel]


def _llama(kind: Maker, seed: int, **changes: Any) -> PreTrainedModel:
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "initializer_range": SPREAD,
        "num_labels": 1,
        "bos_token_id": 1,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
    }
    torch.manual_seed(seed)
    return kind(LlamaConfig(**sizes | changes)).eval()


def _gpt2(kind: Maker, seed: int, dropout: float = 0.0, **changes: Any) -> PreTrainedModel:
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": CONTEXT,
        "initializer_range": SPREAD,
        "num_labels": 1,
        "bos_token_id": 1,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
    }
    drops = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    torch.manual_seed(seed)
    return kind(GPT2Config(**sizes | drops | changes)).eval()


def make_policy(architecture: str, seed: int = 0, precision: str = "float32", **changes: Any) -> PreTrainedModel:
    """`llama` (rotary positions, grouped queries, untied head) or `gpt2` (absolute positions, tied head)."""
    model = {"llama": _llama, "gpt2": _gpt2}[architecture](
        {"llama": LlamaForCausalLM, "gpt2": GPT2LMHeadModel}[architecture], seed, **changes
    )
    compute_in(model, precision)
    return model


def make_classifier(architecture: str, seed: int = 0, precision: str = "float32", **changes: Any) -> PreTrainedModel:
    """A sequence classifier with one label on such a trunk."""
    model = {"llama": _llama, "gpt2": _gpt2}[architecture](
        {"llama": LlamaForSequenceClassification, "gpt2": GPT2ForSequenceClassification}[architecture], seed, **changes
    )
    compute_in(model, precision)
    return model


def bigram_policy(table: Tensor) -> PreTrainedModel:
    """A Llama whose logits after token i are row i of the table (V, V), V even, whatever stood before.

    Its layers add nothing, its embeddings are unit vectors, and its head undoes what the last norm makes of them.
    """
    size = len(table)
    model = _llama(
        LlamaForCausalLM,
        seed=0,
        vocab_size=size,
        hidden_size=size,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        rms_norm_eps=1e-12,
        bos_token_id=None,
        eos_token_id=size - 1,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
        model.get_input_embeddings().weight.copy_(torch.eye(size))
        model.get_output_embeddings().weight.copy_(table.T / size**0.5)
    return model


def linear_classifier(worth: Tensor) -> PreTrainedModel:
    """A classifier of the same build: what it says after token i is worth[i] (V,), V even, whatever stood before."""
    size = len(worth)
    model = _llama(
        LlamaForSequenceClassification,
        seed=0,
        vocab_size=size,
        hidden_size=size,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        rms_norm_eps=1e-12,
        bos_token_id=None,
        eos_token_id=size - 1,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
        model.get_input_embeddings().weight.copy_(torch.eye(size))
        model.score.weight.copy_(worth[None] / size**0.5)
    return model


def ends_often(policy: PreTrainedModel, bias: float = 2.0) -> PreTrainedModel:
    """Some responses end and some do not: the end token is likelier than chance at every place."""
    head = policy.get_output_embeddings()
    head.bias = nn.Parameter(torch.zeros(head.weight.shape[0], dtype=head.weight.dtype))
    with torch.no_grad():
        head.bias[EOS] = bias
    return policy


def random_examples(count: int, seed: int = 0, longest: int = 9, ended: bool = True) -> list[Example]:
    """Prompts and responses of unequal lengths, of any id but the special ones; the end token last."""
    generator = torch.Generator().manual_seed(seed)

    def ids(length: int) -> list[int]:
        return torch.randint(4, VOCABULARY, (length,), generator=generator).tolist()

    lengths = torch.randint(1, longest + 1, (count, 2), generator=generator).tolist()
    return [Example(ids(prompt), [*ids(response), EOS] if ended else ids(response)) for prompt, response in lengths]


def random_ids(rows: int, length: int, seed: int) -> Tensor:
    return torch.randint(4, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def alone(policy: PreTrainedModel, example: Example, temperature: float = 1.0) -> Tensor:
    """(r, V) log-probabilities of every token at each place of the response, from one row without padding."""
    with torch.no_grad():
        logits = policy(input_ids=torch.tensor([example.prompt_ids + example.response_ids])).logits[0].float()
    start = len(example.prompt_ids)
    return torch.stack(
        [torch.log_softmax(logits[start + t - 1] / temperature, -1) for t in range(len(example.response_ids))]
    )


def picked(distributions: Tensor, example: Example) -> Tensor:
    return torch.stack([distributions[t, token] for t, token in enumerate(example.response_ids)])


def value_head(policy: PreTrainedModel) -> nn.Linear:
    torch.manual_seed(4)
    return nn.Linear(policy.config.hidden_size, 1, bias=False)


def tiny_settings(**changes: Any) -> config.TinyModel:
    settings: dict[str, Any] = {
        "tokenizer": "words",
        "vocabulary": 400,
        "hidden_size": 16,
        "layers": 2,
        "heads": 4,
        "intermediate_size": 24,
        "initializer_range": SPREAD,
    }
    return config.TinyModel(**settings | changes)


def words_tokenizer(words: str) -> PreTrainedTokenizerBase:
    return make_tokenizer([words], tiny_settings(), CONTEXT)


def engine_settings(**changes: Any) -> config.Engine:
    settings = {"name": "single", "processes": 1, "dtype": "float32", "threads": 1, "tokens_per_micro_batch": TOKENS}
    settings |= {"responses_at_once": 512, "attention": "auto", "gradient_checkpointing": False}
    return config.Engine(**settings | changes)
