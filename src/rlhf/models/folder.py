"""A model folder of the user's own, looked at before anything depends on it: all of it but the weights themselves."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from rlhf.errors import UserError
from rlhf.models.policy import context_of
from rlhf.models.tokens import load_tokenizer, prompt_room, reading

TOKENIZER_NAME = "tokenizer.json"


def check_folder(folder: Path, max_tokens: int, max_response_tokens: int) -> None:
    """UserError unless a policy and its tokenizer can be loaded from here, with room for a prompt beside a response.

    max_tokens: as in `context_of`. Of the weights only the heads of their files are read, which say how long those are.
    """
    with reading(folder):
        _check_names(folder)
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        with torch.device("meta"):  # the layers of the model, and no memory for its weights
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        for file in _weight_files(folder):
            with safe_open(file, framework="pt"):
                pass
    _check_tokenizer(folder)
    prompt_room(context_of(model, max_tokens), max_response_tokens)


def check_classifier(folder: Path) -> None:
    """UserError unless a sequence classifier with one label and its tokenizer can be loaded from here."""
    with reading(folder):
        _check_names(folder)
        labels = AutoConfig.from_pretrained(str(folder), trust_remote_code=False).id2label
        for file in _weight_files(folder):
            with safe_open(file, framework="pt"):
                pass
    if len(labels) != 1:
        raise UserError(
            f"{folder}: its {CONFIG_NAME} has {len(labels)} labels ({', '.join(map(str, labels.values()))}), and a reward "
            "model has one: name a sequence classifier that was trained with one label"
        )
    _check_tokenizer(folder)


def _check_names(folder: Path) -> None:
    if not (folder / CONFIG_NAME).is_file():
        raise UserError(f"{folder}: holds no {CONFIG_NAME}; name a Hugging Face model directory")
    if not any((folder / name).is_file() for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)):
        raise UserError(
            f"{folder}: holds no {SAFE_WEIGHTS_NAME}: weights are read as safetensors only; where there are others, "
            "convert them with transformers: from_pretrained, save_pretrained"
        )


def _weight_files(folder: Path) -> list[Path]:
    """The one file of weights, or all those that an index names."""
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        return [folder / SAFE_WEIGHTS_NAME]
    index = json.loads((folder / SAFE_WEIGHTS_INDEX_NAME).read_text(encoding="utf-8"))
    return [folder / name for name in sorted(set(index["weight_map"].values()))]


def _check_tokenizer(folder: Path) -> None:
    try:
        load_tokenizer(folder)
    except UserError as error:
        if (folder / TOKENIZER_NAME).is_file():
            raise
        raise UserError(f"{error}; it holds no {TOKENIZER_NAME}") from error
