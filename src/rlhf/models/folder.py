"""A model that a user names, looked at before anything depends on it: all of it but the weights themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from rlhf import config
from rlhf.errors import UserError
from rlhf.models.classifiers import check_classifier, has_linear_head, register_classifier
from rlhf.models.encoder import load_encoders_tokenizer
from rlhf.models.generation import check_cache
from rlhf.models.place import named, reading, refuse_adapter, refuse_other_weights, weight_files
from rlhf.models.policy import context_of, refuse_missing
from rlhf.models.reward import refuse_other_sizes
from rlhf.models.tokens import apply_template, encode_prompt, load_tokenizer, prompt_room
from rlhf.records import Message

TOKENIZER_NAME = "tokenizer.json"
QUESTION, OTHER_QUESTION = (Message("user", "?"),), (Message("user", "!"),)


@dataclass(frozen=True, slots=True)
class Seen:
    """What shows of a model without its weights: how many numbers those are, and how many tokens fit."""

    parameters: int
    context: int


def check_model(model: config.Model, max_response_tokens: int) -> Seen:
    """UserError if the pretrained model that the settings name cannot be what a run starts from; of one on the hub, its
    config and tokenizer are fetched for it."""
    place, revision = model.place
    if revision is None:
        return check_folder(Path(place), model.max_tokens, max_response_tokens, model.chat_template)
    return check_hub(place, revision, model.max_tokens, max_response_tokens, model.chat_template)


def check_folder(folder: Path, max_tokens: int, max_response_tokens: int, chat_template: str | None = None) -> Seen:
    """UserError unless a policy, its tokenizer and a reward model on it can be loaded from here, with room for a prompt
    beside a response.

    max_tokens: as in `context_of`. Of the weights only the heads of their files are read: names and shapes.
    chat_template: as in `load_tokenizer`.
    """
    if folder.is_dir():
        _check_names(folder)
    seen = _look(folder, None, max_tokens)
    _check_tokenizer(folder, chat_template)
    prompt_room(seen.context, max_response_tokens)
    return seen


def check_hub(name: str, revision: str, max_tokens: int, max_response_tokens: int, chat_template: str | None = None) -> Seen:
    """The same of a model on the Hugging Face hub, of which the weights are not fetched for it."""
    seen = _look(name, revision, max_tokens)
    _render(name, revision, chat_template)
    prompt_room(seen.context, max_response_tokens)
    return seen


def _look(place: str | Path, revision: str | None, max_tokens: int) -> Seen:
    """Its size and context; UserError where transformers has no such policy, or no reward model of the kind."""
    with reading(place, revision):
        settings = AutoConfig.from_pretrained(str(place), revision=revision, trust_remote_code=False)
        with torch.device("meta"):  # the layers of the model, and no memory for its weights
            model = AutoModelForCausalLM.from_config(settings, trust_remote_code=False)
        check_classifier(place, settings)
        check_cache(place, model)
        if revision is None:
            _check_weights(Path(place), model)
        else:
            refuse_other_weights(str(place), revision)
        return Seen(sum(weight.numel() for weight in model.parameters()), context_of(model, max_tokens))


def check_reward_model(folder: Path) -> bool:
    """Whether the sequence classifier here is a causal model, with a head named score.

    Raises:
        UserError: none with one label, or no tokenizer for it, can be loaded from here.
    """
    with reading(folder):
        _check_names(folder)
        settings = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    labels, made_as = settings.id2label, settings.architectures or []
    if len(labels) != 1 and made_as and not any("Classification" in name for name in made_as):
        raise UserError(
            f"{folder}: is no classifier: its {CONFIG_NAME} says {', '.join(made_as)}. Name a sequence classifier that was "
            "trained with one label; a language model can be the judge (labeler=judge)"
        )
    if len(labels) != 1:
        raise UserError(
            f"{folder}: its {CONFIG_NAME} has {len(labels)} labels ({', '.join(map(str, labels.values()))}), and a reward "
            "model has one: name a sequence classifier that was trained with one label"
        )
    with reading(folder), torch.device("meta"):
        register_classifier(settings)
        model = AutoModelForSequenceClassification.from_config(settings, trust_remote_code=False)
        _check_weights(folder, model)
    if causal := has_linear_head(model):
        _check_tokenizer(folder, None)
    else:
        load_encoders_tokenizer(folder)
    return causal


def _check_weights(folder: Path, model: PreTrainedModel) -> None:
    """UserError unless the files have all weights of this model, which has none itself, in its shapes."""
    there: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118 (it is no dict)
        there |= {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    kind: Any = type(model)
    _, found = kind.from_pretrained(
        None,  # transformers matches names and shapes as it does when it loads
        config=model.config,
        state_dict=there,
        device_map="meta",
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # which are then told of
    )
    refuse_missing(folder, found["missing_keys"])
    refuse_other_sizes(folder, found["mismatched_keys"])


def _check_names(folder: Path) -> None:
    refuse_adapter(folder, None)
    if not (folder / CONFIG_NAME).is_file():
        raise UserError(f"{folder}: holds no {CONFIG_NAME}; name a Hugging Face model directory")
    if not any((folder / name).is_file() for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)):
        raise UserError(
            f"{folder}: holds no {SAFE_WEIGHTS_NAME}: weights are read as safetensors only; where there are others, "
            "convert them with transformers: from_pretrained, save_pretrained"
        )


def _check_tokenizer(folder: Path, chat_template: str | None) -> None:
    try:
        _render(folder, None, chat_template)
    except UserError as error:
        if (folder / TOKENIZER_NAME).is_file():
            raise
        raise UserError(f"{error}; it holds no {TOKENIZER_NAME}") from error


def _render(place: str | Path, revision: str | None, chat_template: str | None) -> None:
    """UserError unless the tokenizer makes ids of a question, by its chat template or the one given, and that shows it."""
    tokenizer = load_tokenizer(place, revision, chat_template)
    encode_prompt(tokenizer, QUESTION, max_tokens=1)
    if apply_template(tokenizer, QUESTION, tokenize=False) == apply_template(tokenizer, OTHER_QUESTION, tokenize=False):
        whose = "the tokenizer's chat template" if chat_template is None else "model.chat_template"
        raise UserError(
            f"{named(place, revision)}: {whose} says the same of two questions: it has to show every message, as "
            "{% for message in messages %}{{ message['content'] }}{% endfor %} does"
        )
