"""Tells MLflow what a stage does, without ever making the stage wait for it.

MLflow lives in a process of its own (`rlhf.runtime.tracking.writer`), fed through a pipe with one JSON message a line.
Its import, its requests and its faults cost the stage nothing; at the end the stage waits for what is still under way,
for at most `REMOTE_PATIENCE` seconds where a server has to answer. What goes wrong costs one warning; the
run gets its final status wherever its store still answers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.runtime.tracking.process import WriterProcess, writer_in
from rlhf.runtime.tracking.protocol import (
    CHILDREN,
    CLOSE,
    CLOSED,
    FILE,
    METRICS,
    MODEL,
    OPEN,
    OPENED,
    READY,
    REMOTE_PATIENCE,
    TAGS,
    WARM,
    WARNED,
    Message,
    warn,
)

START_PATIENCE = 20.0  # seconds to import MLflow, which no server is to blame for
COPY_PATIENCE = 600.0  # seconds to copy models, where that is asked for
LOCAL_PATIENCE = 60.0  # seconds for a local store, which is slow only where the disk is


def default_uri(root: Path) -> str:
    """MLflow's own default, at the root of the repository."""
    return f"sqlite:///{home_of(root) / 'mlflow.db'}"


def home_of(root: Path) -> Path:
    """The repository itself, where root is the copy of it in which DVC runs a queued experiment."""
    return Path(str(root).partition(f"{os.sep}.dvc{os.sep}tmp{os.sep}exps{os.sep}")[0])


def is_remote(uri: str) -> bool:
    return not uri.startswith(("sqlite:", "file:", "/", "."))


@dataclass
class Tracker:
    """The stage's end of the pipe. Every method returns at once, but for `run_id` and `close`."""

    opening: Message
    writer: WriterProcess | None  # None where there is none any more
    patience: float

    def run_id(self) -> str | None:
        """The id of the run, as soon as it is open; None where it cannot be opened."""
        return self.writer.wait_for(OPENED, START_PATIENCE + self.patience) if self.writer else None

    def log_tags(self, tags: Mapping[str, str]) -> None:
        self._send(kind=TAGS, tags=dict(tags))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._send(kind=METRICS, metrics=dict(metrics), step=step, time=_now())

    def log_file(self, path: Path) -> None:
        self._send(kind=FILE, path=str(path))

    def log_model(self, name: str, directory: Path, step: int, metrics: Mapping[str, float]) -> None:
        """`directory` is best given from the root: as a tag of the model it should mean the same everywhere."""
        self._send(kind=MODEL, name=name, path=str(directory), step=step, metrics=dict(metrics))

    def close_children(self) -> None:
        """Marks as KILLED whatever belongs to this run and was left open, its writer having been killed with its stage."""
        self._send(kind=CHILDREN, time=_now())

    def close(self, status: str) -> None:
        """Waits for the writer to finish, at most as long as its store deserves. One that was killed left the run open:
        another takes it over, to close it."""
        last = {"kind": CLOSE, "status": status, "time": _now()}
        if self.writer and (code := self._finish(self.writer, last)):
            run_id = self.writer.said(OPENED)
            warn(self.opening["uri"], f"its writer ended with code {code}", opened=run_id is not None)
            if run_id:
                heir = writer_in(self.writer.place)
                heir.send(self.opening | {"run_id": run_id})
                self._finish(heir, last, warned=True)
        self.writer = None

    def _finish(self, writer: WriterProcess, last: Message, warned: bool = False) -> int:
        """Has the run closed; the code with which the writer ended before it could do so, 0 where nothing is left to do."""
        uri = self.opening["uri"]
        writer.send(last)
        if is_remote(uri):
            writer.wait_for(READY, START_PATIENCE)
        if writer.wait_for(CLOSED, self.patience) is not None:
            writer.keep()
            return 0
        if (code := writer.ended()) is None:
            writer.kill()
            if not warned and writer.said(WARNED) is None:
                warn(uri, f"not done after {self.patience:.0f} s", opened=writer.said(OPENED) is not None)
        writer.leave()
        return code or 0

    def _send(self, **message: Any) -> None:
        if self.writer:
            self.writer.send(message)


def start(
    root: Path,
    stage: str,
    settings: Mapping[str, Any],
    name: str = "",
    parent: str | None = None,
    run_id: str | None = None,
) -> Tracker:
    """Opens a run called like its stage, if it is given no other name; settings are flat, by dotted names.

    parent: the run of MLflow that this one belongs to. run_id: a run that is there already, and goes on.
    """
    uri = _uri(root)
    patience = COPY_PATIENCE if settings["tracking.copy_models"] else REMOTE_PATIENCE if is_remote(uri) else LOCAL_PATIENCE
    shown = {key: "null" if value is None else str(value) for key, value in settings.items()}
    about = {"uri": uri, "root": str(root), "experiment": shown["tracking.experiment"], "stage": stage}
    which = {"name": name or stage, "parent": parent, "run_id": run_id}
    opening = {"kind": OPEN, "settings": shown, "time": _now()} | about | which
    writer = writer_in(home_of(root))  # where MLflow puts the artifacts of a local store
    writer.send(opening)
    return Tracker(opening, writer, patience)


def warm_up(root: Path) -> None:
    """Has MLflow imported for a run that will be opened before long; not where there is a server to be asked first."""
    if not is_remote(_uri(root)):
        writer = writer_in(home_of(root))
        writer.send({"kind": WARM})
        writer.keep()


def _uri(root: Path) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or default_uri(root)


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)
