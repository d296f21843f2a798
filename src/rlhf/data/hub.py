"""Why the Hugging Face hub does not give a model or a set of data, and what to do about it."""

from __future__ import annotations

from typing import Literal

from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

REASON_LENGTH = 200  # characters of another library's complaint
NAMES = {"model": "model", "dataset": "set of data"}
PAGES = {"model": "", "dataset": "datasets/"}
HERE = {"model": "model.path=DIR", "dataset": "data.path=DIR data.revision=null"}  # once it lies in DIR


def why_not(kind: Literal["model", "dataset"], name: str, revision: str, error: BaseException) -> str:
    """What stands in the way, and what to do, in words that follow the name.

    error: what huggingface_hub raised; one that is none of its own is taken for a hub that cannot be reached.
    """
    page = f"{constants.ENDPOINT}/{PAGES[kind]}{name}"
    match error:
        case GatedRepoError():
            how = f"do so on {page}, then run `hf auth login` or set HF_TOKEN"
            return f"its owner lets in only who has agreed to its terms: {how}"
        case RevisionNotFoundError():
            return f"has no revision {revision}: copy one from {page}/commits/main"
        case RepositoryNotFoundError():
            return f"the hub has no such {NAMES[kind]}, or keeps it private: look at {page}, or set HF_TOKEN"
    return (
        f"is not in the cache ({constants.HF_HUB_CACHE}), and the hub at {constants.ENDPOINT} cannot be reached "
        f"({reason_of(error)}). {elsewhere(kind, name, revision)}"
    )


def elsewhere(kind: Literal["model", "dataset"], name: str, revision: str) -> str:
    """What to do without the hub."""
    of_kind = "" if kind == "model" else f" --repo-type {kind}"
    return (
        f"Connect this machine; or, where there is a network, run `hf download {name}{of_kind} --revision {revision} "
        f"--local-dir DIR`, bring DIR here, and set {HERE[kind]}"
    )


def reason_of(error: BaseException) -> str:
    """Another library's complaint, on one line, cut."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:REASON_LENGTH]
