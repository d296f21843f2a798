"""A training loop's whole state on disk every so many minutes: the same run, started again, goes on from there.

A state is found by what it follows from. Its folder is named after a hash of the stage's settings, code and inputs, so a
run never goes on from another one's state, and ends with the bits that it would have ended with. Settings that move
rounding alone do not count: what ran out of memory may go on with smaller micro-batches, and what lost a machine with
fewer processes; then it says so. (DVC empties a stage's outputs before the stage, unless they are marked `persist`: a stale
policy would lie among them.)
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Protocol

from rlhf.runtime import processes
from rlhf.runtime.checkpoint import store
from rlhf.runtime.checkpoint.identity import Origin
from rlhf.runtime.checkpoint.store import Row
from rlhf.runtime.tracking import home_of

PLACE, LOCKS = "cache/checkpoints", ".locks"
GIB = 2**30


class Resumable(Protocol):
    """The state of a loop whose rows and random numbers are functions of its step."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Checkpoints:
    """Those of one run. seconds: between two of them. label: what its lines on the screen begin with. folder: None until
    `begin`, or where another run has it."""

    origin: Origin
    seconds: float
    output: Path
    label: str
    folder: Path | None = None
    saved: float = field(default_factory=time.monotonic)
    lock: TextIOWrapper | None = None

    def begin(self, state: Resumable) -> list[Row]:
        """Loads the newest state of this run, puts back what it had written by then, and gives its rows; none, where there
        is no state."""
        import torch

        from rlhf.runtime import ranks

        found = None
        if ranks.rank() == 0:
            self.folder = self._take_folder()
            found = store.newest(self.folder, self.say) if self.folder else None
        self.folder, found = ranks.of_rank_0((self.folder, found))
        if found is None:
            return []
        state.load_state_dict(torch.load(found.folder / store.STATE, weights_only=True, mmap=True, map_location="cpu"))
        if ranks.rank() == 0:
            store.put_back(found.folder, self.output)
        now = self.origin.how()
        others = [f"{name} {was} (now {now.get(name)})" for name, was in found.how.items() if was != now.get(name)]
        why = f", made with {', '.join(others)}: last digits are those of neither" if others else ""
        self.say(f"goes on from {store.shown(found.folder)}{why}")
        return found.rows

    def save_if_due(self, state: Resumable, rows: Sequence[Row], stops: bool) -> bool:
        """Between two steps, in every process. stops: whether this one has been asked to end. Returns whether any has."""
        from rlhf.runtime import ranks

        told = ranks.everybodys({ranks.rank(): (time.monotonic() - self.saved >= self.seconds, stops)})
        due, all_stop = told[0][0], any(asked for _, asked in told)
        if self.folder and rows[-1]["step"] and (due or all_stop):
            self._save(state, rows)
            self.saved = time.monotonic()
        if all_stop:
            ranks.of_rank_0(None)  # with the first one's end torchrun stops the others, the one that writes among them
        return all_stop

    def say(self, what: str) -> None:
        processes.tell(f"{self.label} {what}")

    def remove(self) -> None:
        """The run is at its end."""
        if self.lock and self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def let_go(self) -> None:
        """Another run may have the states: the next try of this job, in the same process."""
        if self.lock:
            self.lock.close()

    def _save(self, state: Resumable, rows: Sequence[Row]) -> None:
        from rlhf.runtime import ranks

        assert self.folder
        whole = state.state_dict()
        if ranks.rank():
            return
        try:
            written = store.write(self.folder, whole, rows, self.origin.how(), self.output)
        except OSError as error:
            free = shutil.disk_usage(self.folder.parent).free / GIB
            self.say(f"cannot save its state: {error}; {free:.1f} GiB are free in {store.shown(self.folder)}")
            return
        self.say(f"has saved its state after step {rows[-1]['step']}: {store.shown(self.folder)}, {written / GIB:.3f} GiB")

    def _take_folder(self) -> Path | None:
        """This run's, which no other run has then; None where it cannot be had."""
        values = self.origin.values
        if values["optimizer.bits"] == 8 and values["engine.name"] != "single":
            self.say("saves no state on its way: moments of 8 bits in parts cannot be put together")
            return None
        name, place = self.origin.name(), home_of(self.origin.root) / PLACE
        try:
            (place / LOCKS).mkdir(parents=True, exist_ok=True)
            self.lock = (place / LOCKS / name).open("a+", encoding="utf-8")
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert self.lock
            self.lock.seek(0)
            other, self.lock = self.lock.read().strip(), None
            self.say(f"saves no state: process {other} is at the same run (same settings, code and inputs), and has them")
            return None
        except OSError as error:
            self.say(f"saves no state: {PLACE} cannot be written ({error})")
            return None
        self.lock.truncate(0)
        self.lock.write(f"{os.getpid()}\n")
        self.lock.flush()
        return place / name


def checkpoints_of(origin: Origin, output: Path, label: str) -> Checkpoints | None:
    """Of a run; None where none are wanted, or where dvc.yaml does not say what the stage depends on."""
    minutes = origin.values["checkpoint.every_minutes"]
    return Checkpoints(origin, 60 * minutes, output, label) if minutes and origin.is_known else None
