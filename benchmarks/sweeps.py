"""Times the default sweeps, their jobs one after another and side by side: python benchmarks/sweeps.py

Needs what `dvc repro` leaves, and a machine with nothing else to do. Prints of each sweep

- overhead: the time that the sweep takes beyond that of its jobs, run one after another: starting Python, MLflow's parent
  run, launching, and reading all of it at the end. A job's own time is what a run by hand takes, too: the imports (once a
  process), training, its exam, and its books in MLflow.
- ratio: the time with N jobs at once, over an Nth of the time one after another: 1 is the best that N cores could do.
- ratio at one pace: that ratio, over how much more CPU time the same jobs took when N ran at once, imports aside. They do
  the same work to the last bit: what it costs more is due to cores that share a cache, or on a virtual machine a core, and
  to what else the machine does, and no launcher can mend it.

Before both of DPO's the stage runs once by itself, untimed: what it remembers of the reference is then there for either. The
order is that of the rows; every sweep stays in sweeps/ with its figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.errors import UserError
from rlhf.runtime import markdown
from rlhf.runtime.processes import attempt

STAGES = ("dpo", "ppo")


@dataclass(frozen=True, slots=True)
class Timed:
    """A sweep that has ended. Seconds on the clock, those of its jobs, and their CPU seconds, imports aside."""

    seconds: float
    jobs_seconds: float
    jobs_cpu_seconds: float
    jobs: int


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "python benchmarks/sweeps.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", default=STAGES, metavar="STAGE", help="dpo, ppo (both)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="jobs at once (2)")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.stages) - set(STAGES):
        raise UserError(f"{', '.join(sorted(unknown))} has no default sweep: name {' or '.join(STAGES)}")
    if asked.jobs < 2:
        raise UserError(f"--jobs {asked.jobs} is no number of jobs at once: give 2 or more")
    rows = []
    for stage in asked.stages:
        if stage == "dpo":
            run(stage)
        alone = timed(stage, ())
        together = timed(stage, ("hydra/launcher=joblib", f"hydra.launcher.n_jobs={asked.jobs}"))
        rows.append(row(stage, alone, together, asked.jobs))
        print("\n".join(markdown.table(header(asked.jobs), rows)), flush=True)
    return 0


def timed(stage: str, more: Sequence[str]) -> Timed:
    """Runs the stage's default sweep to its end; UserError if a job of it fails."""
    place = Path("sweeps") / stage / f"timed_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    start = time.monotonic()
    run(stage, f"experiment=sweep_{stage}", *more, f"hydra.sweep.dir={place}")
    seconds = time.monotonic() - start
    books = [json.loads(file.read_text(encoding="utf-8")) for file in place.glob("*/job.json")]
    own = sum(book["import_seconds"] + book["seconds"] for book in books)
    return Timed(seconds, own, sum(book["cpu_seconds"] for book in books), len(books))


def run(stage: str, *arguments: str) -> None:
    command = [sys.executable, f"stages/{stage}.py", *arguments]
    if code := subprocess.run(command, check=False).returncode:
        raise UserError(f"{' '.join(command)} ended with {code}: there is nothing to time")


def header(jobs: int) -> list[str]:
    together = f"{jobs} at once, s"
    return [
        "sweep",
        "jobs",
        "one after another, s",
        "of that its jobs, s",
        "overhead",
        together,
        "ratio",
        "CPU s of its jobs",
        f"CPU s of its jobs, {jobs} at once",
        "ratio at one pace",
    ]


def row(stage: str, alone: Timed, together: Timed, jobs: int) -> list[str]:
    ratio, pace = together.seconds * jobs / alone.seconds, together.jobs_cpu_seconds / alone.jobs_cpu_seconds
    return [
        f"sweep_{stage}",
        str(alone.jobs),
        f"{alone.seconds:.0f}",
        f"{alone.jobs_seconds:.0f}",
        f"{alone.seconds / alone.jobs_seconds - 1:.1%}",
        f"{together.seconds:.0f}",
        f"{ratio:.2f}",
        f"{alone.jobs_cpu_seconds:.0f}",
        f"{together.jobs_cpu_seconds:.0f}",
        f"{ratio / pace:.2f}",
    ]


if __name__ == "__main__":
    sys.exit(attempt("sweeps", lambda: main(sys.argv[1:])))
