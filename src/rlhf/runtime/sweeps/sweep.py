"""Runs a sweep: opens its books, lets Hydra launch the jobs that are missing, and has the whole of it read at the end."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.errors import UserError
from rlhf.runtime import parents, processes, progress, tracking
from rlhf.runtime.hashes import md5_of_json
from rlhf.runtime.messages import Values
from rlhf.runtime.run import Run
from rlhf.runtime.settings import NO_RESULT, flatten, values_of
from rlhf.runtime.sweeps import ledger
from rlhf.runtime.sweeps.ledger import EXAM, JOB
from rlhf.runtime.sweeps.plan import RESUME, Plan
from rlhf.runtime.sweeps.table import write_table

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["EXAM", "JOB", "Job", "Reading", "Work", "sweep"]


ENDED = (ledger.DONE, ledger.FAILED)


@dataclass(frozen=True, slots=True)
class Reading:
    """What is asked of the policies that the jobs of a sweep make.

    check: refuses, before the first job, what they could not be compared with; the md5 of what they are held against,
    by path, without which a sweep does not go on. examine: the answers and figures of one
    policy, called by its settings, written to the run's output. report: the whole sweep; returns what is shown at its end.
    """

    check: Callable[[Path, Plan], dict[str, str]]
    examine: Callable[[Run, str], None]
    report: Callable[[Path, Path], str]


@dataclass(frozen=True, slots=True)
class Work:
    """What a job is, in whatever process: the imports that it needs, once a process, and the run of the stage."""

    load: Callable[[], object]
    run: Callable[..., int]


@dataclass(frozen=True, slots=True)
class Job:
    """What a run of a stage knows of the sweep that it is a part of."""

    name: str
    policy: str  # the name of the policy that it makes, no other's: by all of its settings
    trained: bool  # by an earlier try: only the exam is missing
    parent: str | None  # the sweep's run in MLflow
    tags: dict[str, str]
    reading: Reading | None


def sweep(
    root: Path,
    plan: Plan,
    work: Work,
    reading: Reading | None,
    launch: Callable[[Callable[[DictConfig], None], list[str]], None],
) -> int:
    """The exit code: 0, or 1 if a job has failed."""
    tracking.warm_up(root)
    exam = reading.check(root, plan) if reading else {}
    plan, book = ledger.open_sweep(root, plan, exam)
    with ledger.held(plan.folder):
        ledger.forget_failures(plan.folder)
        shown = os.path.relpath(plan.folder, root)
        about = "; ".join(f"{key} {', '.join(values)}" for key, values in plan.swept.items())
        done = ledger.count(plan.folder, ledger.DONE)
        print(f"sweep of {len(plan.jobs)} jobs in {shown}, {done} done: {about}", flush=True)
        tracker, run_id = _open_run(root, plan, book, shown)
        job = _job(plan, work, reading, run_id, shown, done)
        status = "FAILED"
        try:
            with _resumable(plan, shown):
                _launch(plan.folder, lambda: launch(job, _places(plan)))
            failed = _failures(plan, shown)
            _read(root, plan.folder, reading, failed)
            status = "FAILED" if failed else "FINISHED"
        except (KeyboardInterrupt, processes.Terminated):
            status = "KILLED"
            raise
        finally:
            for file in sorted(path for path in plan.folder.iterdir() if path.suffix in (".csv", ".png", ".md", ".html")):
                tracker.log_file(file)
            tracker.close_children()
            tracker.close(status)
    return 1 if failed else 0


def _open_run(root: Path, plan: Plan, book: ledger.Book, shown: str) -> tuple[tracking.Tracker, str | None]:
    """The sweep's own run in MLflow, opened or opened again, and its id, which the jobs' runs will name."""
    tracker = tracking.start(root, plan.stage, plan.settings, f"{plan.stage} sweep", run_id=book.get("mlflow_run"))
    if run_id := tracker.run_id():
        ledger.write(plan.folder / ledger.SWEEP, book | {"mlflow_run": run_id})
    tracker.log_tags({"sweep": shown, "command": plan.command})
    return tracker, run_id


def _read(root: Path, folder: Path, reading: Reading | None, failed: Sequence[str]) -> None:
    """What the whole of it tells; what failed is told even where the rest cannot be read."""
    write_table(folder)
    try:
        if reading and (said := reading.report(root, folder)):
            print(said, flush=True)
    finally:
        print("\n".join(failed), file=sys.stderr, end="\n" if failed else "", flush=True)


def _places(plan: Plan) -> list[str]:
    """Where Hydra shall let the jobs work, whatever its settings say. It writes nothing there: it would do so before it
    asks whether the job is done."""
    folder = str(plan.folder).replace("'", r"\'")
    return [f"hydra.sweep.dir='{folder}'", "hydra.sweep.subdir=${hydra.job.num}", "hydra.output_subdir=null"]


def _launch(folder: Path, work: Callable[[], None]) -> None:
    """Launches until every job has ended, for one may take its process along, and joblib then ends all others.

    Who was under way with others at such an end is tried again at last, alone: it may have been another's fault.
    """
    again: list[Path] = []
    while True:
        before = ledger.count(folder, *ENDED)
        lost = _lost(folder, work)
        if lost is None:
            break
        again += lost if len(lost) > 1 else []
        if ledger.count(folder, *ENDED) in (before, len(ledger.jobs_of(folder))):
            break
    for place in again:
        ledger.forget(place)
        _lost(folder, work)


def _lost(folder: Path, work: Callable[[], None]) -> list[Path] | None:
    """Launches what has not ended; None where that went well, else the jobs that were under way, marked as failed."""
    try:
        work()
    except UserError:
        raise
    except Exception as error:
        traceback.print_exc()
        return ledger.bury(folder, f"its process ended, or was ended with another's: {type(error).__name__}")
    return None


def _job(
    plan: Plan, work: Work, reading: Reading | None, parent: str | None, shown: str, done: int
) -> Callable[[DictConfig], None]:
    """What Hydra calls for each job, in this process or another: whatever fails is written down, and the others go on."""
    launcher, start = os.getpid(), time.time()

    def job(composed: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        number = int(HydraConfig.get().job.num)
        folder, values = plan.folder / str(number), plan.jobs[number]
        here = contextlib.nullcontext() if os.getpid() == launcher else parents.for_launcher()
        with here, ledger.job_lock(folder):
            if ledger.is_settled(folder):
                return
            name, settings = f"{plan.stage} #{number}", values_of(composed)
            trained = ledger.begin(folder, values, settings["seed"])
            (folder / ".hydra").mkdir()
            OmegaConf.save(composed, folder / ".hydra" / "config.yaml")
            said = ", ".join(f"{key}={value}" for key, value in values.items())
            print(f"{name}: {said}", flush=True)
            policy = f"{plan.stage} {said} ({_digest(settings)})"
            about = Job(name, policy, trained, parent, {"sweep": shown, "job": str(number)}, reading)
            _attempt(folder, name, work, lambda: work.run(composed, job=about))
        _say_how_far(plan, done, start)

    return job


def _digest(settings: Values) -> str:
    """Of all settings that results depend on: policies of two sweeps must not share a name, and with it random numbers."""
    return md5_of_json({key: value for key, value in flatten(settings).items() if not key.startswith(NO_RESULT)})[:8]


def _attempt(folder: Path, name: str, work: Work, run: Callable[[], int]) -> None:
    """Marks a job as done, or as failed and why. One that is stopped stays marked as running, and runs again."""
    start = time.process_time()
    try:
        work.load()
        ledger.loaded(folder)
        start = time.process_time()
        run()
        status, said = ledger.DONE, ""
    except UserError as error:
        status, said = ledger.FAILED, str(error)
    except Exception as error:
        traceback.print_exc()
        status, said = ledger.FAILED, f"{type(error).__name__}: {error}"
    ledger.end(folder, status, said, time.process_time() - start)
    if said:
        print(f"{name}: {said}", file=sys.stderr, flush=True)


def _say_how_far(plan: Plan, before: int, start: float) -> None:
    """How many jobs are done or failed, and when the others may be, at the pace of those since the start."""
    ended = ledger.count(plan.folder, *ENDED)
    gone, left = time.time() - start, len(plan.jobs) - ended
    to_go = gone / max(ended - before, 1) * left
    print(f"sweep {ended}/{len(plan.jobs)} jobs, {progress.clock(gone)} gone, {progress.clock(to_go)} to go", flush=True)


def _failures(plan: Plan, shown: str) -> list[str]:
    """A line for each job that is not done, and how to try it again."""
    bad = [(place.name, job) for place, job in ledger.jobs_of(plan.folder) if job["status"] != ledger.DONE]
    lines = [f"job {number} {job['status'] or 'not begun'}: {job.get('message', '')}" for number, job in bad]
    return [*lines, f"to try again what failed: {_again(plan, shown)}"] if lines else []


def _again(plan: Plan, shown: str) -> str:
    return f"{plan.command} {shlex.quote(f'{RESUME}={shown}')}"


@contextlib.contextmanager
def _resumable(plan: Plan, shown: str) -> Iterator[None]:
    """Says how to go on with a sweep that is stopped."""
    try:
        yield
    except (KeyboardInterrupt, processes.Terminated):
        print(f"to go on: {_again(plan, shown)}", file=sys.stderr, flush=True)
        raise
