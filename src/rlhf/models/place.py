"""Where a model is read from, a folder or the Hugging Face hub, and what is refused there before anything of it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from rlhf.errors import UserError

TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
REASON_LENGTH = 200  # characters of another library's complaint


@contextmanager
def reading(path: str | Path, revision: str | None = None, what: str = "model") -> Iterator[None]:
    """What cannot be loaded becomes a UserError that names the place; without a revision that is a folder, no hub id.

    Raises:
        UserError: also where it is not there, cannot be reached, or brings code of its own.
    """
    if revision is None and not Path(path).is_dir():
        raise UserError(f"{path}: no such folder; name a Hugging Face model directory, or a hub id (model=hub)")
    if revision is not None:
        _reach(str(path), revision)
    try:
        _refuse_code(path, revision)
        yield
    except UserError:
        raise
    except Exception as error:  # on a file that is not as it expects transformers stumbles in any way
        raise UserError(f"{named(path, revision)}: no {what} can be loaded from it ({reason_of(error)})") from error


def named(path: str | Path, revision: str | None) -> str:
    """How messages name a place."""
    return str(path) if revision is None else f"{path} at {revision}"


def reason_of(error: BaseException) -> str:
    """Another library's complaint, on one line, cut."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:REASON_LENGTH]


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


def _reach(name: str, revision: str) -> None:
    """UserError at once where a model has to come from the hub and cannot: its library would try for half a minute, and
    again for every file."""
    if _is_cached(name, revision, CONFIG_NAME) and (
        _is_cached(name, revision, SAFE_WEIGHTS_NAME) or _is_cached(name, revision, SAFE_WEIGHTS_INDEX_NAME)
    ):
        return
    page = f"{constants.ENDPOINT}/{name}"
    try:
        get_hf_file_metadata(hf_hub_url(name, CONFIG_NAME, revision=revision))
    except GatedRepoError as error:
        raise UserError(
            f"{name}: its owner lets in only who has agreed to its terms: do so on {page}, then run `hf auth login` or set "
            "HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"{name}: has no revision {revision}: copy one from {page}/commits/main") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{name}: the hub has no such model, or keeps it private: look at {page}, or set HF_TOKEN"
        ) from error
    except EntryNotFoundError as error:
        raise UserError(f"{named(name, revision)}: holds no {CONFIG_NAME}; name a model of transformers") from error
    except Exception as error:  # whatever the network raises
        raise UserError(
            f"{named(name, revision)}: is not in the cache ({constants.HF_HUB_CACHE}), and the hub at {constants.ENDPOINT} "
            f"cannot be reached ({reason_of(error)}). Connect this machine; or, where there is a network, run "
            f"`hf download {name} --revision {revision} --local-dir DIR`, bring DIR here, and set model=local model.path=DIR"
        ) from error


def _is_cached(name: str, revision: str, file: str) -> bool:
    return isinstance(try_to_load_from_cache(name, file, revision=revision), str)
