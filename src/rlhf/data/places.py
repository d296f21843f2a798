"""Where a user's data lie: a file, a folder of files, or a set on the Hugging Face hub at a pinned commit."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from pathlib import Path

from rlhf.config import Data
from rlhf.errors import UserError

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
PACKED = (".zst", ".bz2", ".xz", ".lz4", ".br", ".zip", ".7z")  # beside gzip: not read
ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # what `datasets` leaves beside data
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def files_of(data: Data) -> list[Path]:
    """The files to read, in order: one file whatever its name; of a folder or a set those named as data, by their names.

    Raises:
        UserError: data.path is nothing that is here and no set that can be had, or there is no file to read in it.
    """
    path = Path(data.path)
    if data.revision is not None:
        folder, names = _from_hub(data, data.revision)
        return [folder / name for name in _chosen(names, data)]
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        return [path / name for name in _chosen(names, data)]
    if path.exists():
        if data.pattern is not None:
            raise UserError(
                f"data.pattern ({data.pattern}) chooses among the files of a folder or of a set on the hub, but data.path "
                f"({data.path}) is a file: set it to null"
            )
        return [path]
    hub = f"; for the set {data.path} on the Hugging Face hub, set data.revision to a commit in full"
    raise UserError(
        f"data.path ({data.path}): there is neither a file nor a folder of this name"
        f"{hub if HUB_ID.fullmatch(data.path) else ''}"
    )


def _chosen(names: Iterable[str], data: Data) -> list[str]:
    """Those named as data that fit the pattern, in order. UserError for none, or for one that is packed but not by gzip."""
    there = sorted(name for name in names if _is_data(name.lower()))
    fitting = [name for name in there if data.pattern is None or fnmatch.fnmatchcase(name, data.pattern)]
    unread = [name for name in fitting if name.lower().endswith(PACKED)]
    if unread:
        raise UserError(
            f"{data.path}: {', '.join(unread[:9])}: named as data, but packed in a way that is not read: unpack them, pack "
            "them by gzip, or leave them out with data.pattern"
        )
    if not fitting:
        among = f" among {', '.join(there[:9])}" if there else f" named {', '.join(ENDINGS)}, with or without .gz"
        wanted = f"data.pattern ({data.pattern}) fits no file" if data.pattern and there else "there is no file"
        raise UserError(f"{data.path}: {wanted}{among}")
    return fitting


def _is_data(name: str) -> bool:
    """Of a name in lower case."""
    hidden = any(part.startswith(".") for part in name.split("/"))
    packing = next((ending for ending in (".gz", *PACKED) if name.endswith(ending)), "")
    return name.removesuffix(packing).endswith(ENDINGS) and not hidden and name.rpartition("/")[2] not in ABOUT


def _from_hub(data: Data, revision: str) -> tuple[Path, list[str]]:
    """The folder in the hub's cache with the set's data, and the names of all the set's files; what is there already is not
    fetched again."""
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

    from rlhf.data.hub import elsewhere, why_not

    logging.set_verbosity_error()  # the complaint below says it
    endings = [f"*{ending}{packed}" for ending in ENDINGS for packed in ("", ".gz")]
    wanted = [data.pattern] if data.pattern else [_in_any_case(ending) for ending in endings]
    others = [pattern for name in ABOUT for pattern in (name, f"*/{name}")]
    try:
        folder = snapshot_download(
            data.path, repo_type="dataset", revision=revision, allow_patterns=wanted, ignore_patterns=others
        )
        listed = get_cached_repo_tree(data.path, repo_type="dataset", revision=revision)  # what the folder was compared with
        return Path(folder), [file.path for file in listed]
    except errors.CachedRepoTreeNotFoundError as error:
        part = f"{constants.ENDPOINT} does not say which files it has, and those in the cache may be a part of it"
        raise _not_had(data.path, revision, f"{part}. {elsewhere('dataset', data.path, revision)}") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise _not_had(data.path, revision, why_not("dataset", data.path, revision, error)) from error
    except (errors.HTTPError, errors.XetDownloadError, OSError) as error:
        raise _not_had(data.path, revision, why_not("dataset", data.path, revision, error.__cause__ or error)) from error


def _in_any_case(pattern: str) -> str:
    return "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in pattern)


def _not_had(path: str, revision: str, reason: str) -> UserError:
    return UserError(f"data.path ({path}) at data.revision ({revision}): {reason}")
