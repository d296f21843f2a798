"""How large a model is, from its config alone: its modules are made on the meta device, where they hold no numbers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from rlhf import config
from rlhf.errors import UserError
from rlhf.models.classifiers import check_classifier, has_linear_head, register_classifier
from rlhf.models.place import reading
from rlhf.models.policy import context_of
from rlhf.models.reward import of_first_layers
from rlhf.models.tiny import tiny_config

NO_LIMIT = sys.maxsize  # tokens of a model that tells none
COMPOSED_GELU = ("NewGELUActivation", "FastGELUActivation")  # of several operations, three of which keep one more tensor


@dataclass(frozen=True, slots=True)
class Linear:
    """One linear layer of the trunk, by its own name."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, in elements a token: what it makes on its way that a backward pass needs again.

    outputs: of its linear layers. attended: what attention gives the last of its own. middle: what enters the last linear
    layer of all. activated: what comes between. layer_norms, rms_norms: what goes through norms of either kind.
    """

    parameters: int
    outputs: int
    attended: int
    middle: int
    activated: int
    layer_norms: int
    rms_norms: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """A whole model. key_values: elements of a token in the cache, all layers. attention: the kernel that it takes where
    none is asked for."""

    parameters: int
    layers: int
    layer: Layer
    hidden: int
    vocabulary: int
    context: int
    heads: int
    key_values: int
    linears: tuple[Linear, ...]
    attention: str
    soft_capped: bool


def policy_sizes(model: config.Model) -> Sizes:
    """Of the language model that the settings name; of one on the hub no more than its config is fetched.

    Raises:
        UserError: its config cannot be read, or transformers has no such policy or reward model.
    """
    return sizes_of(_on_meta(AutoModelForCausalLM, _config_of(model)), model.max_tokens)


def classifier_sizes(model: config.Model, layers: int | None) -> Sizes:
    """Of a reward model or critic on its first so many layers; None: all."""
    settings = _config_of(model)
    settings.num_labels = 1
    made = _on_meta(AutoModelForSequenceClassification, settings if layers is None else of_first_layers(settings, layers))
    return sizes_of(made, model.max_tokens)


def labeler_sizes(folder: str, *, judge: bool) -> tuple[Sizes, bool]:
    """Of somebody else's model that labels, from the config in its folder, and whether it is causal: a judge, or a reward
    model whose head is a linear one; others read both ways (`models.encoder`).

    Raises:
        UserError: its config cannot be read, or how its layers are made is not known.
    """
    kind = AutoModelForCausalLM if judge else AutoModelForSequenceClassification
    with reading(folder):
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        register_classifier(settings)
        made = _on_meta(kind, settings)
        causal = judge or has_linear_head(made)
        return sizes_of(made, 0 if causal else NO_LIMIT), causal


def _config_of(model: config.Model) -> PretrainedConfig:
    if model.tiny is not None:
        return tiny_config(model.tiny, model.tiny.vocabulary, model.max_tokens)
    place, revision = model.place
    with reading(place, revision, "config.json"):
        found: PretrainedConfig = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
        check_classifier(Path(place), found)
    return found


def _on_meta(kind: Any, settings: PretrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        made: PreTrainedModel = kind.from_config(settings, trust_remote_code=False)
    return made


def sizes_of(model: PreTrainedModel, max_tokens: int) -> Sizes:
    """Of a model that is there, on the meta device or another. max_tokens: as in `context_of`."""
    settings: Any = model.config.get_text_config()
    heads = settings.num_attention_heads
    groups = getattr(settings, "num_key_value_heads", None) or heads
    head = getattr(settings, "head_dim", None) or settings.hidden_size // heads
    layers = _layers(model, settings.num_hidden_layers)
    return Sizes(
        parameters=sum(p.numel() for p in model.parameters()),
        layers=len(layers),
        layer=_layer(layers[0], heads, groups, head),
        hidden=settings.hidden_size,
        vocabulary=settings.vocab_size,
        context=context_of(model, max_tokens),
        heads=heads,
        key_values=2 * len(layers) * groups * head,
        linears=tuple(found for layer in layers for found in _linears(layer).values()),
        attention=model.config._attn_implementation or "eager",
        soft_capped=getattr(settings, "attn_logit_softcapping", None) is not None,
    )


def _layers(model: PreTrainedModel, count: int) -> nn.ModuleList:
    found = (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count)
    layers = next(found, None)
    if layers is None:
        raise UserError(
            f"the {count} layers of a {model.config.model_type} model are not found: its memory cannot be planned"
        )
    return layers


def _linears(layer: nn.Module) -> dict[str, Linear]:
    """By their names in the layer, in the order in which they are made, which is that of the forward pass."""
    found = {}
    for name, module in layer.named_modules():
        if isinstance(module, nn.Linear):
            found[name] = Linear(name.rpartition(".")[2], module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            found[name] = Linear(name.rpartition(".")[2], module.nx, module.nf)
    return found


def _layer(layer: nn.Module, heads: int, groups: int, head: int) -> Layer:
    linears = _linears(layer)
    *before, last = linears
    middle = linears[last].inputs
    beside = sum(linears[name].outputs for name in before if name.rpartition(".")[0] == last.rpartition(".")[0])
    gated = beside == 2 * middle
    composed = any(type(module).__name__ in COMPOSED_GELU for module in layer.modules())
    norms = {"LayerNorm": 0, "RMSNorm": 0}
    for name, module in layer.named_modules():
        kind = "LayerNorm" if isinstance(module, nn.LayerNorm) else "RMSNorm" if _is_rms_norm(module) else None
        if kind:
            norms[kind] += _normed(name, int(module.weight.numel()), heads, groups, head)
    return Layer(
        parameters=sum(p.numel() for p in layer.parameters()),
        outputs=sum(linear.outputs for linear in linears.values()),
        attended=heads * head,
        middle=middle,
        activated=2 * middle if gated else 4 * middle if composed else middle,
        layer_norms=norms["LayerNorm"],
        rms_norms=norms["RMSNorm"],
    )


def _is_rms_norm(module: nn.Module) -> bool:
    return "RMSNorm" in type(module).__name__


def _normed(name: str, width: int, heads: int, groups: int, head: int) -> int:
    """Elements of a token that go through a norm: one of queries or keys has the weights of one head for all of them."""
    own = name.rpartition(".")[2]
    if width == head and own.startswith(("q", "k")):
        return width * (heads if own.startswith("q") else groups)
    return width
