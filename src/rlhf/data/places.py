"""Where a user's data lie: a file, a folder of files, or a set on the Hugging Face hub at a pinned commit."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from rlhf.config import Data
from rlhf.errors import UserError

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # what `datasets` leaves beside data
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def files_of(data: Data) -> list[Path]:
    """The files to read, in order: one file whatever its name; of a folder or a set those named as data, by their names.

    Raises:
        UserError: data.path is nothing that is here and no set that can be had, or there is no file to read in it.
    """
    path = Path(data.path)
    if data.revision is not None:
        return _in_folder(_from_hub(data, data.revision), data.pattern, data.path)
    if path.is_dir():
        return _in_folder(path, data.pattern, data.path)
    if path.exists():
        return [path]
    hub = f"; for the set {data.path} on the Hugging Face hub, set data.revision to a commit in full"
    raise UserError(
        f"data.path ({data.path}): there is neither a file nor a folder of this name"
        f"{hub if HUB_ID.fullmatch(data.path) else ''}"
    )


def _in_folder(folder: Path, pattern: str | None, name: str) -> list[Path]:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    found = [name for name in names if _holds_data(name)]
    chosen = [name for name in found if pattern is None or fnmatch.fnmatchcase(name, pattern)]
    if not chosen:
        there = f" among {', '.join(found[:9])}" if found else f" named {', '.join(ENDINGS)}, with or without .gz"
        wanted = f"data.pattern ({pattern}) fits no file" if pattern and found else "there is no file"
        raise UserError(f"{name}: {wanted}{there}")
    return [folder / name for name in chosen]


def _holds_data(name: str) -> bool:
    hidden = any(part.startswith(".") for part in name.split("/"))
    return name.removesuffix(".gz").endswith(ENDINGS) and not hidden and name.rpartition("/")[2] not in ABOUT


def _from_hub(data: Data, revision: str) -> Path:
    """The folder in the hub's cache that holds the set's files; what is there already is not fetched again."""
    if Path(data.path).exists():
        raise UserError(
            f"data.revision ({revision}) is for a set on the Hugging Face hub, but {data.path} lies here: set it to null"
        )
    if not HUB_ID.fullmatch(data.path):
        raise UserError(
            f"data.path ({data.path}): there is neither a file nor a folder of this name, and with data.revision "
            f"({revision}) it must be the id of a set on the Hugging Face hub, OWNER/NAME"
        )
    from huggingface_hub import constants, errors, get_cached_repo_tree, snapshot_download
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # the complaint below says it
    wanted = [data.pattern] if data.pattern else [f"*{ending}{packed}" for ending in ENDINGS for packed in ("", ".gz")]
    others = [f"*{name}" for name in ABOUT]
    try:
        folder = snapshot_download(
            data.path, repo_type="dataset", revision=revision, allow_patterns=wanted, ignore_patterns=others
        )
        get_cached_repo_tree(data.path, repo_type="dataset", revision=revision)  # which the folder was compared with
        return Path(folder)
    except errors.CachedRepoTreeNotFoundError as error:
        reason = f"{constants.ENDPOINT} does not say which files it has, and those in the cache may be a part of it"
        raise _not_had(data.path, revision, f"{reason}; {_elsewhere(data.path, revision)}") from error
    except errors.RevisionNotFoundError as error:
        mend = f"it has no such commit: copy one from {constants.ENDPOINT}/datasets/{data.path}/commits/main"
        raise _not_had(data.path, revision, mend) from error
    except (errors.RepositoryNotFoundError, errors.GatedRepoError) as error:
        mend = "there is no such set, or not for you: check data.path, and for a set with gated access run `hf auth login`"
        raise _not_had(data.path, revision, mend) from error
    except (errors.HTTPError, errors.XetDownloadError, OSError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        mend = f"{constants.ENDPOINT} cannot be reached ({reason}), and it is not in the cache"
        raise _not_had(data.path, revision, f"{mend}; {_elsewhere(data.path, revision)}") from error


def _elsewhere(path: str, revision: str) -> str:
    return (
        f"try again with the network, or fetch it elsewhere (`hf download {path} --repo-type dataset --revision {revision} "
        "--local-dir DIR`) and set data.path=DIR and data.revision=null"
    )


def _not_had(path: str, revision: str, reason: str) -> UserError:
    return UserError(f"data.path ({path}) at data.revision ({revision}): {reason}")
