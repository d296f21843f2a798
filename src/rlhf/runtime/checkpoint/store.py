"""Saved states on disk: each a folder that is whole or not there, and told from a damaged one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.runtime.hashes import md5_of

STEP, HALF = "step_", ".half_"
STATE, ROWS, FILES, MANIFEST = "state.pt", "rows.json", "files", "manifest.json"
KEPT = 2  # the newest, and the one before it, for when the newest is damaged
NOT_OURS = ("curve.csv", "job.json", "job.lock")  # written at the end, or by a sweep

Row = dict[str, float]


@dataclass(frozen=True, slots=True)
class Saved:
    """A state on disk, its rows, and how it was computed."""

    folder: Path
    rows: list[Row]
    how: dict[str, Any]


def write(folder: Path, whole: dict[str, Any], rows: Sequence[Row], how: dict[str, Any], output: Path) -> int:
    """Saves a state and what the stage has written to its output; its bytes.

    Every file is on the disk before the folder has its name. Other states go last, but for the one before it: those of later
    steps were damaged, or it would not have been made. OSError leaves them as they are.
    """
    half = folder / f"{HALF}{os.getpid()}"
    try:
        (half / FILES).mkdir(parents=True)
        _save(whole, half / STATE)
        (half / ROWS).write_text(json.dumps({"rows": rows, "how": how}), encoding="utf-8")
        for path in _of_the_stage(output):
            if path.is_dir():  # of models, which are written once
                shutil.copytree(path, half / FILES / path.name, copy_function=_link_or_copy)
            else:
                shutil.copy2(path, half / FILES / path.name)
        found = {path.relative_to(half).as_posix(): md5_of(path) for path in sorted(_files(half))}
        (half / MANIFEST).write_text(json.dumps(found, indent=1), encoding="utf-8")
        for path in [*_files(half), *(path for path in half.rglob("*") if path.is_dir()), half]:
            _sync(path)
        done = folder / f"{STEP}{int(rows[-1]['step']):09}"
        shutil.rmtree(done, ignore_errors=True)
        half.replace(done)
        _sync(folder)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise
    states = _newest_first(folder)
    for other in {*states} - {*states[states.index(done) :][:KEPT]}:
        shutil.rmtree(other, ignore_errors=True)
    return sum(path.stat().st_size for path in _files(done))


def newest(folder: Path, say: Callable[[str], None]) -> Saved | None:
    """The newest state that is as it was written; says which are not. Removes what was only half written."""
    for half in folder.glob(f"{HALF}*"):
        shutil.rmtree(half, ignore_errors=True)
    for place in _newest_first(folder):
        if why := damage(place):
            say(f"passes over {shown(place)}, which is damaged: {why}")
            continue
        told = json.loads((place / ROWS).read_text(encoding="utf-8"))
        return Saved(place, told["rows"], told["how"])
    return None


def damage(place: Path) -> str:
    """Which file is not what was written; empty where all are."""
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        wrong = [name for name, written in manifest.items() if md5_of(place / name) != written]
    except (OSError, ValueError) as error:
        return f"{MANIFEST}, or a file it names, cannot be read ({type(error).__name__})"
    return f"{wrong[0]} is not as it was written" if wrong else ""


def put_back(place: Path, output: Path) -> None:
    """What the stage had written by then, instead of what lies there of it."""
    for path in (place / FILES).iterdir():
        target = output / path.name
        if path.is_dir():
            shutil.rmtree(target, ignore_errors=True)  # its files may be the very ones that were saved
            shutil.copytree(path, target)
        else:
            shutil.copy2(path, target)


def shown(path: Path) -> str:
    """From `cache/` on."""
    last = len(path.parts) - 1 - path.parts[::-1].index("checkpoints")
    return "/".join(path.parts[last - 1 :])


def _save(whole: dict[str, Any], file: Path) -> None:
    """OSError where it cannot be written, which torch calls a RuntimeError."""
    import torch

    try:
        torch.save(whole, file)
    except RuntimeError as error:
        raise OSError(str(error).splitlines()[0]) from error


def _of_the_stage(output: Path) -> Iterator[Path]:
    return (p for p in output.iterdir() if p.name not in NOT_OURS and p.suffix != ".log" and not p.name.startswith("."))


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{STEP}*"), reverse=True)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _link_or_copy(source: str, target: str) -> None:
    with suppress(OSError):  # another file system
        os.link(source, target)
        return
    shutil.copy2(source, target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
