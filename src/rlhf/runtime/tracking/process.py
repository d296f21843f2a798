"""The processes that write to MLflow, seen from the stage: started, fed, listened to, and kept for the next run.

To import MLflow takes seconds of a core that the jobs of a sweep have need of: a process that goes from job to job has one
writer for all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rlhf.runtime.tracking.protocol import Message

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "true",
}

_idle: list[WriterProcess] = []  # each waits for the next run; all end with this process, which holds their pipes


@dataclass
class WriterProcess:
    """One such process and its pipes. `wait_for` waits as long as it is told, `kill` for the end; nothing else waits."""

    place: Path  # where it runs
    process: subprocess.Popen[bytes]
    backlog: bytearray = field(default_factory=bytearray)
    heard: bytearray = field(default_factory=bytearray)  # of what it has said about this run

    def send(self, message: Message) -> None:
        self.backlog += json.dumps(message).encode() + b"\n"
        self._push()

    def wait_for(self, word: str, seconds: float) -> str | None:
        """What follows that word, at the start of a line that the writer says; None if it does not say so in that time.

        What is still to be sent goes on its way meanwhile.
        """
        deadline = time.monotonic() + seconds
        while (found := self.said(word)) is None:
            full = [self._stdin] if self.backlog else []
            heard, free, _ = select.select([self._stdout], full, [], max(0.0, deadline - time.monotonic()))
            if free:
                self._push()
            if (heard and not self._hear()) or not (heard or free):
                return None
        return found

    def said(self, word: str) -> str | None:
        """What followed that word in the first whole line to begin with it; None where there is none."""
        lines = self.heard.decode(errors="replace").split("\n")[:-1]
        return next((line.removeprefix(word) for line in lines if line.startswith(word)), None)

    def ended(self) -> int | None:
        """Its exit code, with all that it had to say heard; None while it lives."""
        code = self.process.poll()
        while code is not None and self._hear():
            pass
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.ended()

    def keep(self) -> None:
        """Lets it wait for the next run."""
        self.heard.clear()
        _idle.append(self)

    def leave(self) -> None:
        """Lets it end by itself."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def _stdin(self) -> int:
        assert self.process.stdin is not None
        return self.process.stdin.fileno()

    @property
    def _stdout(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def _push(self) -> None:
        """Writes as much as the pipe takes without waiting; what is left goes first the next time."""
        try:
            with contextlib.suppress(BlockingIOError):
                while self.backlog:
                    del self.backlog[: os.write(self._stdin, self.backlog)]
        except BrokenPipeError:  # it has ended, for a reason that whoever closes the run looks into
            self.backlog.clear()

    def _hear(self) -> bool:
        """Reads what it says, or waits for it; False where that was all, and the process has ended."""
        read = os.read(self._stdout, 1 << 12)
        self.heard += read
        if not read:
            self.process.wait()
        return bool(read)


def writer_in(place: Path) -> WriterProcess:
    """One that waits for a run to write in this folder, or a new one."""
    while _idle:
        kept = _idle.pop()
        if kept.place == place and kept.process.poll() is None:
            return kept
        kept.leave()
    return _launch(place)


def _launch(place: Path) -> WriterProcess:
    writer = subprocess.Popen(
        [sys.executable, "-m", "rlhf.runtime.tracking.writer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=place,
        env=os.environ | QUIET | {"PYTHONPATH": str(Path(__file__).parents[3])},
        start_new_session=True,  # Ctrl-C is for the stage: the writer ends when its pipe does
    )
    assert writer.stdin is not None
    os.set_blocking(writer.stdin.fileno(), False)
    return WriterProcess(place, writer)
