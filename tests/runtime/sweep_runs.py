"""Sweeps of a small stage, started, stopped and read back."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.runtime.sweeps.plan import Plan, plan
from tests.runtime.conftest import NO_MLFLOW, Repository

JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
TIMES = ("seconds", "cpu_seconds")
THIRD = str(1 / 3)  # the loss that the stage ends with

# A job goes on, row after row, for as long as the file `hold` names its kl_ctl.
HELD = """
    import time
    hold, said = run.root / "hold", set()
    def rows():
        while hold.exists() and str(run.config.ppo.kl_ctl) in hold.read_text().split():
            if not said:
                run.tracker.run_id()  # by then it is in MLflow, if that is there
                print("held", flush=True)
                said.add(True)
            time.sleep(0.01)
            yield {"step": 4, "loss": 0.25}
    for _ in run.follow(rows(), 5):
        pass
"""


DVC = """
stages:
  ppo:
    cmd: python stages/ppo.py
    deps: [artifacts/sft, stages/ppo.py]
    params: [seed, ppo, data.prompts]
"""
GRID = ("-m", "ppo.kl_ctl=0.05,0.1", "ppo.clip_range=0.1,0.2")
EXPERIMENT = """# @package _global_
hydra: {mode: MULTIRUN, sweeper: {params: {ppo.kl_ctl: "0.05,0.1", ppo.clip_range: "0.1,0.2"}}}
"""


def planned(root: Path, *arguments: str) -> Plan:
    found = plan(root, "ppo", arguments)
    assert found is not None
    return found


@dataclass
class Mlflow:
    """A run as the store has it."""

    id: str
    name: str
    status: str
    parent: str | None
    folder: Path

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()


def mlflow_runs(repository: Repository) -> tuple[list[Mlflow], list[Mlflow]]:
    """The sweeps, and their jobs, by name."""
    query = """select run_uuid, name, status, value from runs left join tags
        on tags.run_uuid = runs.run_uuid and key = 'mlflow.parentRunId' order by name, start_time"""
    with sqlite3.connect(repository.root / "mlflow.db") as store:
        rows = store.execute(query.replace("select run_uuid", "select runs.run_uuid")).fetchall()
    runs = [Mlflow(*row, repository.root / "mlruns" / "0" / row[0] / "artifacts") for row in rows]
    return [run for run in runs if not run.parent], [run for run in runs if run.parent]


def table(folder: Path) -> list[dict[str, str]]:
    """sweep.csv but for the times."""
    with (folder / "sweep.csv").open(encoding="utf-8", newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def row(job: int, kl_ctl: str, status: str = "done", message: str = "") -> dict[str, str]:
    """What a sweep over ppo.kl_ctl says of a job."""
    figures = (kl_ctl, THIRD) if status == "done" else ("", "")
    about = {"job": str(job), "status": status, "ppo.kl_ctl": kl_ctl}
    return about | dict(zip(("ppo/kl_ctl", "ppo/nested/loss"), figures, strict=True)) | {"message": message}


def book(folder: Path, name: str = "job.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return found


def stamps(folder: Path) -> dict[str, tuple[bytes, int]]:
    """The bytes and the time of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def start(repository: Repository, *arguments: str, tracked: bool = True) -> subprocess.Popen[str]:
    """A sweep in a process group of its own, as a shell starts it, that hears Ctrl-C."""
    environment = repository.environment(**({} if tracked else {"MLFLOW_TRACKING_URI": NO_MLFLOW}))
    return subprocess.Popen(
        [sys.executable, "stages/ppo.py", *arguments],
        cwd=repository.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(sweep: subprocess.Popen[str], *lines: str) -> None:
    """Reads what a sweep says until all of these have been said, one as often as it is here."""
    assert sweep.stdout is not None
    missing = list(lines)
    while missing:
        said = sweep.stdout.readline()
        assert said, f"it ended without {missing}: {sweep.communicate()[1]}"
        if line := next(filter(said.startswith, missing), None):
            missing.remove(line)


def stop(sweep: subprocess.Popen[str], name: str) -> tuple[int, str]:
    """The exit code and the last words, when nothing that it has started is left. Ctrl-C goes to all of its group."""
    number = getattr(signal, name)
    os.killpg(sweep.pid, number) if name == "SIGINT" else sweep.send_signal(number)
    _, said = sweep.communicate(timeout=120)  # ends when the last of those ends who hold the other end
    return sweep.returncode, said
