"""Policies: plain Hugging Face causal language models, loaded, completed and written so that stock tools read them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from rlhf import config
from rlhf.errors import UserError
from rlhf.models.adapters import adapt, on_the_same_trunk
from rlhf.models.attention import attention_kernel
from rlhf.models.precision import DTYPES
from rlhf.models.tokens import end_id, pad_id, reading

Module = TypeVar("Module", bound=nn.Module)

# A stage has one progress bar, its own; and a missing head is no news where a head is what is made here.
logging.disable_progress_bar()
logging.set_verbosity_error()


def without_dropout(model: Module) -> Module:
    """Every dropout at 0: the policy that samples, the one that is scored and the one that learns are one function."""
    configs = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    for place in [*model.modules(), *configs]:
        if isinstance(place, nn.Dropout):
            place.p = 0.0
        # Layers also read theirs from attributes or from the config, under names that differ: attn_pdrop, layerdrop, …
        for name in [name for name, value in vars(place).items() if "drop" in name and isinstance(value, float)]:
            setattr(place, name, 0.0)
    return model


def load_policy(
    path: str | Path, device: torch.device, engine: config.Engine, revision: str | None = None
) -> PreTrainedModel:
    """A causal language model with its dropout off, in evaluation mode, on the device; it computes as the engine says."""
    with reading(path, revision):
        settings = AutoConfig.from_pretrained(str(path), revision=revision, trust_remote_code=False)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(path),
            dtype=DTYPES[engine.dtype],
            attn_implementation=attention_kernel(engine, device, AutoModelForCausalLM, settings),
            revision=revision,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    model, found = loaded
    refuse_missing(path, found["missing_keys"])
    return without_dropout(model).to(device).eval()


def load_policy_and_reference(
    path: Path, device: torch.device, engine: config.Engine, lora: config.Lora, seed: int, base: str
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """What learns, and what it is held against: two models that say the same, on one trunk where an adapter learns.

    seed: of the adapter. base: what its file calls these weights.
    """
    policy = load_policy(path, device, engine)
    if not lora.rank:
        return policy, load_policy(path, device, engine)
    reference = on_the_same_trunk(policy)
    adapt(policy, lora, seed, base)
    return policy, reference


def refuse_missing(path: str | Path, weights: Iterable[str]) -> None:
    """UserError for weights that are not in the file: transformers would draw them at random, without a word."""
    missing = sorted(weights)
    if missing:
        raise UserError(f"{path}: {len(missing)} of the model's weights are not in its file: {', '.join(missing[:3])}")


def fit_to_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Makes room in the model for a pad token the tokenizer was given, and agrees with it on the special tokens.

    A new row is the mean of the others: to the model the new token is the average one, no more likely than any.
    """
    embeddings = model.get_input_embeddings()
    old = int(embeddings.weight.shape[0])  # type: ignore[index]
    if len(tokenizer) > old:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        tables = (model.get_input_embeddings(), model.get_output_embeddings())
        with torch.no_grad():
            for parameter in [parameter for table in tables for parameter in table.parameters()]:
                parameter[old:] = parameter[:old].mean(0)
    agree_on_special_tokens(model, tokenizer)
    return model


def agree_on_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Model and tokenizer name the same end and pad tokens; the end token is the only one."""
    model.config.eos_token_id = end_id(tokenizer)
    model.config.pad_token_id = pad_id(tokenizer)


def save_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    max_response_tokens: int,
    temperature: float = 1.0,
) -> None:
    """A Hugging Face directory: stock `generate` samples from the policy as it is, at the temperature of its training."""
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end_id(tokenizer),
        pad_token_id=pad_id(tokenizer),
        max_new_tokens=max_response_tokens,
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
    )
    save_pretrained(model, tokenizer, directory)


def save_pretrained(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Weights, config and tokenizer, with nothing of this machine in them."""
    agree_on_special_tokens(model, tokenizer)
    model.config._name_or_path = ""
    model.save_pretrained(directory)
    tokenizer.name_or_path = ""
    for how_it_was_loaded in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(how_it_was_loaded, None)
    tokenizer.save_pretrained(directory)


def context_of(model: PreTrainedModel, max_tokens: int) -> int:
    """How many tokens of prompt and response fit: what the model was made for, at most `max_tokens` (0: no limit).

    Raises:
        UserError: neither says.
    """
    made_for = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = [limit for limit in (made_for, max_tokens) if limit]
    if not limits:
        raise UserError("model.max_tokens (0) must be set: the model's own config does not say how long its context is")
    return min(limits)
