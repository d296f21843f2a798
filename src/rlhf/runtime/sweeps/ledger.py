"""The books of a sweep: what was asked for, and what became of each job, as files that every process can read.

A job that is under way holds a lock on its folder: whoever goes on with a sweep whose jobs outlived it waits for them.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf.errors import UserError
from rlhf.runtime import pipeline
from rlhf.runtime.hashes import md5_of
from rlhf.runtime.settings import NO_RESULT
from rlhf.runtime.sweeps.plan import RESUME, Plan

SWEEP, JOB, LOCK, SWEEP_LOCK = "sweep.json", "job.json", "job.lock", "sweep.lock"
RUNNING, DONE, FAILED = "running", "done", "failed"
TRAINED = "trained"  # by an earlier try, whose exam failed
EXAM = "evaluation"  # the folder of a job that holds what its policy answered to the exam, and its figures
SPENT = ("seconds", "cpu_seconds")  # of a job, but for its imports
Book = dict[str, Any]
NOTHING: Mapping[str, str] = {}


def open_sweep(root: Path, plan: Plan, exam: Mapping[str, str] = NOTHING) -> tuple[Plan, Book]:
    """Makes the sweep's folder, or finds it as it was left; returns the plan with the folder it has got, and its sweep.json.

    exam: the md5 of what the jobs are held against, by path.

    Raises:
        UserError: there is no such sweep to go on with, it was another one, its inputs have changed since, or another
            sweep lies where this one is to lie.
    """
    asked = {"stage": plan.stage, "swept": plan.swept, "jobs": plan.jobs, "settings": plan.settings}
    asked |= {"inputs": inputs_of(root, plan.stage) | dict(exam), "command": plan.command}
    file = plan.folder / SWEEP
    if plan.resumed:
        found = read(file)
        if found is None:
            raise UserError(f"{RESUME} ({plan.folder}) holds no sweep: {SWEEP} is not there")
        if missing := [key for key in asked if key not in found]:
            raise UserError(f"{file} is not the {SWEEP} of a sweep: it has no {', '.join(missing)}")
        _refuse_another(found, asked, plan.folder)
        return plan, found
    folder = _claim_named(plan.folder, asked) if plan.named else _claim_beside(plan.folder, asked)
    return replace(plan, folder=folder), asked


def _claim_named(folder: Path, asked: Book) -> Path:
    """A folder that was asked for by name: it may be there, empty."""
    taken = UserError(f"{folder} is taken: name another one, or go on with a sweep that lies there by {RESUME}=DIR")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise taken
        write(folder / SWEEP, asked, first=True)
    except FileExistsError:
        raise taken from None
    return folder


def _claim_beside(folder: Path, asked: Book) -> Path:
    """This folder, or if another sweep has begun in the same second, the next free one: TIME-2, TIME-3, …"""
    names = itertools.chain([folder.name], (f"{folder.name}-{number}" for number in itertools.count(2)))
    for place in map(folder.with_name, names):
        with contextlib.suppress(FileExistsError):
            place.mkdir(parents=True)
            write(place / SWEEP, asked)
            return place
    raise AssertionError("unreachable: the names never end")


def inputs_of(root: Path, stage: str) -> dict[str, str]:
    """The md5 of everything that the jobs read of other stages."""
    deps = pipeline.declared(root, stage).deps or ()
    return {dep: md5_of(root / dep) for dep in deps if dep.startswith("artifacts/") and (root / dep).exists()}


def _refuse_another(found: Book, asked: Book, folder: Path) -> None:
    """UserError naming what the sweep in this folder has otherwise."""
    lines = []
    for what in ("stage", "swept", "settings", "inputs"):
        old, new = found[what], asked[what]
        if not isinstance(old, dict):
            lines += [f"  {what}: {old} there, {new} now"] * (old != new)
            continue
        names = [name for name in old | new if old.get(name) != new.get(name) and not name.startswith(NO_RESULT)]
        lines += [f"  {name}: {_shown(old.get(name))} there, {_shown(new.get(name))} now" for name in names]
    if not lines and found["jobs"] != asked["jobs"]:
        lines = [f"  the order of the settings: {', '.join(found['swept'])} there, {', '.join(asked['swept'])} now"]
    if lines:
        lines = list(dict.fromkeys(lines))
        raise UserError("\n".join([f"{RESUME} ({folder}) is another sweep:", *lines, f"it was: {found['command']}"]))


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else "nothing" if value is None else str(value)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds the whole sweep; UserError where another process does, which would be disturbed."""
    with (folder / SWEEP_LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is at work on {folder}: wait for its end, or stop it") from None
        yield


@contextlib.contextmanager
def job_lock(folder: Path) -> Iterator[None]:
    """Holds the job's folder, after whoever may hold it still."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"job {folder.name}: waits for another process that still works on it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_settled(folder: Path) -> bool:
    """Whether the job is done or failed."""
    return (read(folder / JOB) or {}).get("status") in (DONE, FAILED)


def count(folder: Path, *statuses: str) -> int:
    return sum(job["status"] in statuses for _, job in jobs_of(folder))


def forget_failures(folder: Path) -> None:
    """Lets what failed be tried again."""
    for place, job in jobs_of(folder):
        if job["status"] == FAILED:
            forget(place)


def forget(place: Path) -> None:
    """Lets a job be tried again: the exam alone, where that had begun."""
    if (place / EXAM).is_dir():
        write(place / JOB, (read(place / JOB) or {}) | {"status": TRAINED})
    else:
        (place / JOB).unlink()


def bury(folder: Path, message: str) -> list[Path]:
    """Marks the jobs as failed whose process is gone without a word; returns their folders."""
    buried = []
    for place, job in jobs_of(folder):
        if job["status"] == RUNNING:
            with (place / LOCK).open("a") as lock, contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                end(place, FAILED, message)
                buried.append(place)
    return buried


def begin(folder: Path, values: Mapping[str, str], seed: int) -> bool:
    """Clears what an earlier try has left, but for a policy that is trained, and marks the job as running; whether it is."""
    earlier = read(folder / JOB) or {}
    trained = earlier.get("status") == TRAINED
    spent = {key: earlier[key] for key in SPENT if trained and key in earlier}
    for path in folder.iterdir():
        if path.name == LOCK or path.suffix == ".log" or (trained and path.name not in (EXAM, ".hydra")):
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    about = {"status": RUNNING, "settings": dict(values), "seed": seed}
    write(folder / JOB, about | spent | {"since": time.time()})
    return trained


def loaded(folder: Path) -> None:
    """Tells the imports, which the first job of a process makes for all of its jobs, apart from the job's own seconds."""
    job, now = read(folder / JOB) or {}, time.time()
    write(folder / JOB, job | {"import_seconds": round(now - job.get("since", now), 3), "since": now})


def end(folder: Path, status: str, message: str = "", cpu_seconds: float = 0.0) -> None:
    """Of a job whose policy an earlier try has trained, the seconds of that are told, too."""
    job = read(folder / JOB) or {}
    took = dict(zip(SPENT, (time.time() - job.pop("since", time.time()), cpu_seconds), strict=True))
    spent = {key: round(job.get(key, 0.0) + value, 3) for key, value in took.items()}
    write(folder / JOB, job | {"status": status, "message": message} | spent)


def jobs_of(folder: Path) -> list[tuple[Path, Book]]:
    """Every job of a sweep, with what became of it; one that never began has no status."""
    book = read(folder / SWEEP) or {"jobs": []}
    places = [folder / str(number) for number in range(len(book["jobs"]))]
    empty: list[Book] = [{"status": "", "settings": values} for values in book["jobs"]]
    return [(place, read(place / JOB) or blank) for place, blank in zip(places, empty, strict=True)]


def read(file: Path) -> Book | None:
    """What a file holds, None where there is none; UserError if it is no JSON object."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} is not a JSON object")
    return found


def write(file: Path, content: Book, first: bool = False) -> None:
    """In one step: whoever reads it, reads all of it. FileExistsError where this is to be the first, and is not."""
    half = file.with_name(f"{file.name}.{os.getpid()}")
    half.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if not first:
        half.replace(file)
        return
    try:
        os.link(half, file)
    finally:
        half.unlink()
