"""A model of our own: a small Llama with random weights and a tokenizer made from the text it will read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlhf import config
from rlhf.data.words import BESIDE_THEM, WITHOUT_SPACES, split_words
from rlhf.errors import UserError
from rlhf.models.tokens import complete_tokenizer

SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
TURNS = ("Human:", "Assistant:")  # the words of the plain chat template


def make_tokenizer(texts: Sequence[str], tiny: config.TinyModel, max_tokens: int) -> PreTrainedTokenizerBase:
    """`words`: a token for each word between white space, in scripts without spaces for each character and mark; `bpe`:
    byte-level byte-pair encoding, for any text.

    Raises:
        UserError: more distinct words than `model.tiny.vocabulary`.
    """
    tokenizer = _words(texts, tiny.vocabulary) if tiny.tokenizer == "words" else _bpe(texts, tiny.vocabulary)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_tokens, **SPECIAL)
    return complete_tokenizer(fast, "model=tiny")


def _words(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    counts = Counter(word for text in texts for word in split_words(text))
    words = [*SPECIAL.values(), *TURNS, *sorted(counts.keys() - {*SPECIAL.values(), *TURNS})]
    if len(words) > vocabulary:
        raise UserError(
            f"model.tiny.vocabulary ({vocabulary}) must be at least the number of distinct words in the text "
            f"({len(words)}): raise it, or choose model.tiny.tokenizer=bpe, which reads any text"
        )
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if re.search(WITHOUT_SPACES, "".join(words)):
        _without_spaces(tokenizer)
    return tokenizer


def _without_spaces(tokenizer: Tokenizer) -> None:
    """Reads and writes as `split_words` and `join_words` do."""
    each = pre_tokenizers.Split(Regex(WITHOUT_SPACES), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([tokenizer.pre_tokenizer, each])
    spaced = decoders.Replace(Regex("^"), " ")
    tokenizer.decoder = decoders.Sequence([spaced, decoders.Fuse(), decoders.Replace(Regex(f"^ |{BESIDE_THEM}"), "")])


def _bpe(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL.values()), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tiny_config(tiny: config.TinyModel, vocabulary: int, max_tokens: int, **special: Any) -> LlamaConfig:
    """A Llama of these sizes with a context of `max_tokens`. special: ids of tokens, as LlamaConfig names them."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=tiny.hidden_size,
        num_hidden_layers=tiny.layers,
        num_attention_heads=tiny.heads,
        num_key_value_heads=tiny.heads,
        intermediate_size=tiny.intermediate_size,
        max_position_embeddings=max_tokens,
        initializer_range=tiny.initializer_range,
        tie_word_embeddings=True,
        **special,
    )


def make_model(
    tokenizer: PreTrainedTokenizerBase, tiny: config.TinyModel, max_tokens: int, seed: int, device: torch.device
) -> PreTrainedModel:
    """A Llama of these sizes with a context of `max_tokens`, its weights from N(0, initializer_range) by the seed."""
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    sizes = tiny_config(tiny, len(tokenizer), max_tokens, **special)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: PreTrainedModel = LlamaForCausalLM(sizes)
    made.to(device)  # type: ignore[arg-type]
    return made
