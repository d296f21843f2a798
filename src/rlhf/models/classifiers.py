"""Sequence classifiers with a linear head, for causal architectures: transformers' own, or made here of its own parts.

Of many decoders transformers has the causal language model alone. A classifier is then the same trunk under the head that
transformers puts on Llama and the like (`GenericForSequenceClassification`), and is registered with transformers, whose
`AutoModelForSequenceClassification` finds it from then on in this process.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForSequenceClassification

from rlhf.errors import UserError


def check_classifier(place: str | Path, settings: PretrainedConfig) -> None:
    """UserError unless there is, or can be made, a sequence classifier with a linear head for this architecture."""
    register_classifier(settings)
    if type(settings) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        with torch.device("meta"):
            made = AutoModelForSequenceClassification.from_config(settings, trust_remote_code=False)
        if has_linear_head(made):
            return
    raise UserError(
        f"{place}: transformers has no sequence classifier with a linear head for the architecture {settings.model_type}, "
        "nor a decoder that one could be made of, and reward model and critic are one: choose a model of another (llama, "
        "qwen2, qwen3, gemma2, mistral, gpt2, …)"
    )


def has_linear_head(model: PreTrainedModel) -> bool:
    """As transformers' sequence classifiers of causal models have it; those that read both ways have other heads."""
    return isinstance(getattr(model, "score", None), nn.Linear)


def register_classifier(settings: PretrainedConfig) -> None:
    """Makes transformers know a classifier of this causal architecture, where it has none and one can be made."""
    kind = type(settings)
    if kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING or kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return
    with torch.device("meta"):
        causal: PreTrainedModel = AutoModelForCausalLM.from_config(settings, trust_remote_code=False)
    if _is_head_on_its_trunk(causal, settings) and _is_causal(causal):
        AutoModelForSequenceClassification.register(kind, _classifier_of(causal), exist_ok=True)


def _is_head_on_its_trunk(causal: PreTrainedModel, settings: PretrainedConfig) -> bool:
    """Whether it is the architecture's own model of text under a linear head, not half of another model, nor one whose text
    is a part of its config."""
    head = causal.get_output_embeddings()
    return (
        type(causal.config) is type(settings)
        and settings.get_text_config() is settings
        and type(causal.base_model) is MODEL_MAPPING.get(type(settings), None)
        and isinstance(head, nn.Linear)
        and head.in_features == getattr(settings, "hidden_size", None)
    )


def _is_causal(causal: PreTrainedModel) -> bool:
    """Whether no layer reads both ways, as far as it says; a trunk that takes no mask (cpmant) has one of its own."""
    takes = inspect.signature(type(causal.base_model).forward).parameters
    return "attention_mask" in takes and all(getattr(module, "is_causal", True) for module in causal.modules())


def _classifier_of(causal: PreTrainedModel) -> type[PreTrainedModel]:
    """Its weights have the names that they have in the causal model, so that either reads the other's files."""
    architecture = next(kind for kind in type(causal).__mro__[1:] if issubclass(kind, PreTrainedModel))
    name = type(causal).__name__.removesuffix("ForCausalLM") + "ForSequenceClassification"
    own = {
        "config_class": type(causal.config),
        "base_model_prefix": causal.base_model_prefix,
        "__module__": architecture.__module__,  # transformers asks there which kernels and names of weights there are
    }
    return type(name, (GenericForSequenceClassification, architecture), own)
