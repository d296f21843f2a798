"""Tells MLflow what a stage does, without ever making the stage wait for it.

MLflow lives in a process of its own (`rlhf.runtime.tracking.writer`), fed through a pipe with one JSON message a line.
Its import, its requests and its faults cost the stage nothing; at the end the stage waits for what is still under way,
for at most `REMOTE_PATIENCE` seconds where a server has to answer. What goes wrong costs one warning; the
run gets its final status wherever its store still answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REMOTE_PATIENCE = 5.0  # seconds that a server which does not answer may cost a stage, all in all
START_PATIENCE = 20.0  # seconds to import MLflow, which no server is to blame for
COPY_PATIENCE = 600.0  # seconds to copy models, where that is asked for
REASON_LENGTH = 300
LOCAL_PATIENCE = 60.0  # seconds for a local store, which is slow only where the disk is

OPENED = "run "  # the writer's own lines on its standard output: this and the id of the run that it opened;
WARNED = "warned"  # it has given a warning

TELEMETRY_OFF = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "true",
}


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
    """The stage's end of the pipe. Every method returns at once, `close` excepted."""

    opening: dict[str, Any]
    writer: subprocess.Popen[bytes] | None
    patience: float
    backlog: bytearray = field(default_factory=bytearray)
    heard: bytearray = field(default_factory=bytearray)  # of what the writer says

    def run_id(self) -> str | None:
        """The id of the run, as soon as it is open; None where it cannot be opened."""
        deadline = time.monotonic() + START_PATIENCE + self.patience
        while (found := _run_id_in(self.heard)) is None and self.writer and self.writer.stdout:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.writer.stdout], [], [], left)[0]:
                return None
            if not (read := os.read(self.writer.stdout.fileno(), 1 << 12)):
                return None
            self.heard += read
        return found

    def log_tags(self, tags: Mapping[str, str]) -> None:
        self._send(kind="tags", tags=dict(tags))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._send(kind="metrics", metrics=dict(metrics), step=step, time=_now())

    def log_file(self, path: Path) -> None:
        self._send(kind="file", path=str(path))

    def log_model(self, name: str, directory: Path, step: int, metrics: Mapping[str, float]) -> None:
        """`directory` is best given from the root: as a tag of the model it should mean the same everywhere."""
        self._send(kind="model", name=name, path=str(directory), step=step, metrics=dict(metrics))

    def close_children(self) -> None:
        """Marks as KILLED whatever belongs to this run and was left open, its writer having been killed with its stage."""
        self._send(kind="children", time=_now())

    def close(self, status: str) -> None:
        """Waits for the writer to finish, at most as long as its store deserves."""
        uri = self.opening["uri"]
        if self.writer is not None and self.writer.poll():
            self._replace(self.writer)
        self._send(kind="close", status=status, time=_now())
        if self.writer is None:
            return
        if is_remote(uri) and self.writer.stdout is not None and not self.heard:
            select.select([self.writer.stdout], [], [], START_PATIENCE)
        try:
            self.writer.communicate(bytes(self.backlog), timeout=self.patience)
        except subprocess.TimeoutExpired:
            self.writer.kill()
            run_id, warned = self._last_words(self.writer)
            if not warned:
                warn(uri, f"not done after {self.patience:.0f} s", opened=run_id is not None)
        self.writer = None

    def _replace(self, dead: subprocess.Popen[bytes]) -> None:
        """A writer that was killed leaves its run open: another one takes it over, to close it."""
        run_id, _ = self._last_words(dead)
        warn(self.opening["uri"], f"its writer ended with code {dead.returncode}", opened=run_id is not None)
        self.backlog.clear()
        self.writer = _launch(Path(self.opening["root"])) if run_id else None
        self._send(**self.opening | {"run_id": run_id})

    def _last_words(self, dead: subprocess.Popen[bytes]) -> tuple[str | None, bool]:
        """The id of the run that a writer opened, and whether it gave a warning."""
        said = bytes(self.heard) + dead.communicate()[0]
        self.heard.clear()
        return _run_id_in(said), WARNED in said.decode(errors="replace").splitlines()

    def _send(self, **message: Any) -> None:
        """Writes as much as the pipe takes without waiting; what is left goes first the next time."""
        if self.writer is None or self.writer.stdin is None:
            return
        self.backlog += json.dumps(message).encode() + b"\n"
        try:
            with contextlib.suppress(BlockingIOError):
                while self.backlog:
                    del self.backlog[: os.write(self.writer.stdin.fileno(), self.backlog)]
        except BrokenPipeError:  # the writer has ended, for a reason that `close` looks into
            self.backlog.clear()


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
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_uri(root)
    patience = COPY_PATIENCE if settings["tracking.copy_models"] else REMOTE_PATIENCE if is_remote(uri) else LOCAL_PATIENCE
    shown = {key: "null" if value is None else str(value) for key, value in settings.items()}
    about = {"uri": uri, "root": str(root), "experiment": shown["tracking.experiment"], "stage": stage}
    which = {"name": name or stage, "parent": parent, "run_id": run_id}
    opening = {"kind": "open", "settings": shown, "time": _now()} | about | which
    tracker = Tracker(opening, _launch(root), patience)
    tracker._send(**opening)
    return tracker


def _launch(root: Path) -> subprocess.Popen[bytes]:
    writer = subprocess.Popen(
        [sys.executable, "-m", "rlhf.runtime.tracking.writer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=home_of(root),  # where MLflow puts the artifacts of a local store
        env=os.environ | TELEMETRY_OFF | {"PYTHONPATH": str(Path(__file__).parents[3])},
        start_new_session=True,  # Ctrl-C is for the stage: the writer ends when its pipe does
    )
    assert writer.stdin is not None
    os.set_blocking(writer.stdin.fileno(), False)
    return writer


def _run_id_in(said: bytes | bytearray) -> str | None:
    """The id in the line that a writer says it in, once the line is whole."""
    lines = said.decode(errors="replace").split("\n")[:-1]
    return next((line.removeprefix(OPENED) for line in lines if line.startswith(OPENED)), None)


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)


def warn(uri: str, reason: str, opened: bool = False) -> None:
    """One line, without what could be a password in the address; `opened` where MLflow has the run, if not all of it."""
    scheme, _, rest = uri.partition("://")
    secret, at, place = rest.rpartition("@")
    reason = reason.replace(secret + at, "")[:REASON_LENGTH]
    lost = "not all is in" if opened else "no"
    text = f"warning: {lost} MLflow at {scheme}://{place} ({reason}); the run goes on without it"
    print(text, file=sys.stderr, flush=True)
