"""One message for each way in which the hub gives nothing, of models and of sets of data."""

from __future__ import annotations

from typing import Literal

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from rlhf.data.hub import why_not

NAME, COMMIT = "maker/little", "0123456789abcdef0123456789abcdef01234567"
KINDS: list[tuple[Literal["model", "dataset"], str]] = [("model", ""), ("dataset", "datasets/")]


def made(kind: type[HfHubHTTPError], text: str = "no") -> HfHubHTTPError:
    """Without the response that it usually comes with."""
    error = kind.__new__(kind)
    error.args = (text,)
    return error


@pytest.mark.parametrize(("kind", "folder"), KINDS)
def test_every_complaint_of_the_hub_says_where_to_look(kind: Literal["model", "dataset"], folder: str) -> None:
    page = f"{constants.ENDPOINT}/{folder}{NAME}"
    gated, moved, none = (
        why_not(kind, NAME, COMMIT, made(error))
        for error in (GatedRepoError, RevisionNotFoundError, RepositoryNotFoundError)
    )
    assert gated == (
        f"its owner lets in only who has agreed to its terms: do so on {page}, then run `hf auth login` or set HF_TOKEN"
    )
    assert moved == f"has no revision {COMMIT}: copy one from {page}/commits/main"
    assert none.startswith("the hub has no such ")
    assert none.endswith(f"or keeps it private: look at {page}, or set HF_TOKEN")


@pytest.mark.parametrize("error", [OSError("no\nroute"), made(HfHubHTTPError, "503")])
def test_a_hub_that_cannot_be_reached_is_told_how_to_do_without(error: Exception) -> None:
    found = why_not("dataset", NAME, COMMIT, error)
    assert f"({type(error).__name__}: {' '.join(str(error).split())})" in found
    assert found.endswith(
        f"run `hf download {NAME} --repo-type dataset --revision {COMMIT} --local-dir DIR`, bring DIR here, and set "
        "data.path=DIR data.revision=null"
    )
    assert why_not("model", NAME, COMMIT, error).endswith(
        f"run `hf download {NAME} --revision {COMMIT} --local-dir DIR`, bring DIR here, and set model.path=DIR"
    )
