"""Where a model is read from, a folder or the Hugging Face hub, and what is refused there before anything of it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import Any

from huggingface_hub import (
    constants,
    file_exists,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import EntryNotFoundError
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from rlhf.data.hub import reason_of, why_not
from rlhf.errors import UserError

TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
TOKENIZER_NAMES = ("tokenizer.json", "tokenizer.model", "vocab.json")  # one of which every tokenizer has


@contextmanager
def reading(path: str | Path, revision: str | None = None, what: str = "model") -> Iterator[None]:
    """What cannot be loaded becomes a UserError that names the place; without a revision that is a folder, no hub id.

    what: model, tokenizer, or config.json: what will be read of it.

    Raises:
        UserError: also where it is not there, cannot be reached, or brings code of its own or an adapter, or its
            index names other files than safetensors beside it.
    """
    if revision is None and not Path(path).is_dir():
        raise UserError(f"{path}: no such folder; name a Hugging Face model directory, or a hub id (model=hub)")
    with _within_reach(str(path), revision, what):
        try:
            _refuse_code(path, revision)
            refuse_adapter(path, revision)
            if what == "model":
                _refuse_index(path, revision)
            yield
        except UserError:
            raise
        except Exception as error:  # on a file that is not as it expects transformers stumbles in any way
            raise UserError(f"{named(path, revision)}: no {what} can be loaded from it ({reason_of(error)})") from error


def named(path: str | Path, revision: str | None) -> str:
    """How messages name a place."""
    return str(path) if revision is None else f"{path} at {revision}"


def read_json(path: str | Path, revision: str | None, name: str) -> dict[str, Any]:
    """A file of settings beside the weights, fetched alone from the hub; nothing where there is none or it has no keys."""
    file = Path(path) / name
    if revision is not None:
        try:
            file = Path(hf_hub_download(str(path), name, revision=revision))
        except EntryNotFoundError:
            return {}
    if not file.is_file():
        return {}
    with suppress(ValueError):  # what is not JSON, the reader that needs it will say
        found = json.loads(file.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def weight_files(folder: Path) -> list[Path]:
    """The one file of weights, or all those that an index names; UserError for one that it must not name."""
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        return [folder / SAFE_WEIGHTS_NAME]
    _refuse_index(folder, None)
    return [folder / name for name in sorted(set(_shards(folder, None).values()))]


def _shards(path: str | Path, revision: str | None) -> dict[str, str]:
    """File by weight, as the index has it; nothing where there is none, or it is none."""
    found = read_json(path, revision, SAFE_WEIGHTS_INDEX_NAME).get("weight_map")
    return {str(weight): str(file) for weight, file in found.items()} if isinstance(found, dict) else {}


def _refuse_index(path: str | Path, revision: str | None) -> None:
    """UserError for an index that names a file of another kind, which transformers would read as a pickle, or elsewhere; and
    for a config that names another index or file than is looked at here."""
    other = read_json(path, revision, CONFIG_NAME).get("transformers_weights")
    if other not in (None, SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME):
        raise UserError(
            f"{named(path, revision)}: {CONFIG_NAME} says that the weights are in {other} (transformers_weights): they are "
            f"read from {SAFE_WEIGHTS_NAME}, or from the files that {SAFE_WEIGHTS_INDEX_NAME} names; save the model anew "
            "with transformers (from_pretrained, save_pretrained), or choose another one"
        )
    for weight, file in _shards(path, revision).items():
        place = PureWindowsPath(file)  # for it both slashes part names
        if not file.endswith(".safetensors") or place.anchor or ".." in place.parts:
            raise UserError(
                f"{named(path, revision)}: {SAFE_WEIGHTS_INDEX_NAME} says that {weight} is in {file}: weights are read as "
                "safetensors only, and from the model's own folder; save the model anew with transformers "
                "(from_pretrained, save_pretrained), or choose another one"
            )


def refuse_other_weights(name: str, revision: str) -> None:
    """UserError for a model on the hub whose weights are not there as safetensors; within `reading`."""
    files = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)
    if constants.HF_HUB_OFFLINE or any(file_exists(name, file, revision=revision) for file in files):
        return  # offline, `reading` has found them in the cache
    raise UserError(
        f"{named(name, revision)}: holds no {SAFE_WEIGHTS_NAME}: weights are read as safetensors only; choose a revision "
        "that has them, or convert the others with transformers (from_pretrained, save_pretrained) and set model.path=DIR"
    )


def _refuse_code(path: str | Path, revision: str | None) -> None:
    """UserError for a model that needs, or has beside it, Python of its own: that is not run, and without it the model may
    be another one."""
    modules = [] if revision else sorted(file.name for file in Path(path).glob("*.py"))
    if modules:
        raise UserError(
            f"{path}: brings code of its own ({', '.join(modules[:3])}), which is never run. If transformers knows the "
            "architecture, save the model with it (from_pretrained, save_pretrained) into a folder without such files"
        )
    for name in (CONFIG_NAME, TOKENIZER_CONFIG_NAME):
        if code := read_json(path, revision, name).get("auto_map"):
            raise UserError(
                f"{named(path, revision)}: {name} asks for code of its own (auto_map: {str(code)[:80]}), which is never "
                "run. Choose a model that transformers itself knows, or remove auto_map where it knows this one"
            )


def refuse_adapter(path: str | Path, revision: str | None) -> None:
    """UserError for an adapter in the model's own place: transformers would put it into the model, and what is saved of that
    later would be the adapter alone."""
    if read_json(path, revision, ADAPTER_CONFIG_NAME):
        raise UserError(
            f"{named(path, revision)}: is an adapter, or has one beside its weights ({ADAPTER_CONFIG_NAME}): merge it "
            "first, into a folder of its own (peft: merge_and_unload, then save_pretrained of model and tokenizer); or take "
            "the file away, where the weights are meant without it"
        )


@contextmanager
def _within_reach(name: str, revision: str | None, what: str) -> Iterator[None]:
    """Asks the hub once whether it has the model. Where it does not answer, the cache serves, if that has enough; else it is
    a UserError at once: the hub's library would try for half a minute, and again for every file."""
    offline = constants.HF_HUB_OFFLINE
    if revision is not None:
        try:
            get_hf_file_metadata(hf_hub_url(name, CONFIG_NAME, revision=revision))
        except Exception as error:  # whatever the hub or the network says
            if not _is_cached(name, revision, what):
                if isinstance(error, EntryNotFoundError):
                    why = f"holds no {CONFIG_NAME}; name a model of transformers"
                else:
                    why = why_not("model", name, revision, error)
                raise UserError(f"{named(name, revision)}: {why}") from error
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def _is_cached(name: str, revision: str, what: str) -> bool:
    """Whether the cache has what is always read; what a tokenizer is made of beside differs from one to the next."""

    def place(file: str) -> Path | None:
        found = try_to_load_from_cache(name, file, revision=revision)
        return Path(found) if isinstance(found, str) else None

    if what == "model" and (index := place(SAFE_WEIGHTS_INDEX_NAME)):
        return all(place(file) for file in set(_shards(index.parent, None).values()))
    any_of = {"model": (SAFE_WEIGHTS_NAME,), "tokenizer": TOKENIZER_NAMES}.get(what, (CONFIG_NAME,))
    return place(CONFIG_NAME) is not None and any(place(file) for file in any_of)
