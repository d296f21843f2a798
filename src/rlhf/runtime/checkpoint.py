"""A training loop's whole state on disk every so many minutes: the same run, started again, goes on from there.

A state is found by what it follows from. Its folder is named after a hash of the stage's settings, code and inputs, so a
run never goes on from another one's state, and ends with the bits that it would have ended with. Settings that move
rounding alone do not count: what ran out of memory may go on with smaller micro-batches, and what lost a machine with
fewer processes; then it says so. (DVC empties a stage's outputs before the stage, unless they are marked `persist`: a stale
policy would lie among them.)
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rlhf.errors import UserError
from rlhf.runtime.hashes import md5_of, md5_of_json
from rlhf.runtime.pipeline import Declared
from rlhf.runtime.tracking import home_of

ROUNDING = (  # of the engine
    "name",
    "processes",
    "attention",
    "gradient_checkpointing",
    "threads",
    "tokens_per_micro_batch",
    "responses_at_once",
)
PLACE = "cache/checkpoints"
STATE, ROWS, FILES, STEP = "state.pt", "rows.json", "files", "step_"
NAMED = re.compile(r"\$\{([\w.]+)\}")  # a setting in a path of dvc.yaml

Row = dict[str, float]


class Resumable(Protocol):
    """The state of a loop whose rows and random numbers are functions of its step."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Checkpoints:
    """Those of one run, in a folder that is its own; only the newest is kept.

    seconds: between two. how: what moves rounding, by name. output: the run's; what was there before the run stays out.
    """

    folder: Path
    seconds: float
    how: dict[str, Any]
    output: Path
    before: set[str] = field(default_factory=set)
    saved: float = field(default_factory=time.monotonic)

    def go_on(self, state: Resumable, say: Callable[[str], None]) -> list[Row]:
        """Loads the newest state, puts back what the run had written by then, and gives its rows; none, where none is there.

        Raises:
            UserError: it cannot be read.
        """
        import torch

        from rlhf.runtime import ranks

        newest = ranks.of_rank_0(max(self.folder.glob(f"{STEP}*"), default=None))
        if newest is None:
            return []
        try:
            told = json.loads((newest / ROWS).read_text(encoding="utf-8"))
            whole = torch.load(newest / STATE, weights_only=True, mmap=True, map_location="cpu")
        except Exception as error:  # whatever it is that torch finds in it
            raise UserError(f"{newest}: is no state to go on from ({error}): remove it, and the run begins anew") from error
        state.load_state_dict(whole)
        if ranks.rank() == 0:
            shutil.copytree(newest / FILES, self.output, dirs_exist_ok=True)
        others = [f"{name} {was} (now {self.how[name]})" for name, was in told["how"].items() if was != self.how[name]]
        why = f", made with {', '.join(others)}: last digits are those of neither" if others else ""
        say(f"goes on from {_shown(newest)}{why}")
        rows: list[Row] = told["rows"]
        return rows

    def save_if_due(self, state: Resumable, rows: Sequence[Row], say: Callable[[str], None]) -> None:
        """Between two steps, in every process."""
        from rlhf.runtime import ranks

        if ranks.of_rank_0(time.monotonic() - self.saved >= self.seconds):
            self.save(state, rows)
            say(f"has saved its state after step {rows[-1]['step']}: {_shown(self.folder)}")
            self.saved = time.monotonic()

    def save(self, state: Resumable, rows: Sequence[Row]) -> None:
        """Nothing half written is ever taken for a state, and the one before stays until then."""
        import torch

        from rlhf.runtime import ranks

        whole = state.state_dict()
        if ranks.rank():
            return
        half = self.folder / f".half_{os.getpid()}"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        torch.save(whole, half / STATE)
        (half / ROWS).write_text(json.dumps({"rows": rows, "how": self.how}), encoding="utf-8")
        (half / FILES).mkdir()
        for path in self.output.iterdir():
            if path.name not in self.before:
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, half / FILES / path.name)
        done = self.folder / f"{STEP}{int(rows[-1]['step']):09}"
        shutil.rmtree(done, ignore_errors=True)
        half.replace(done)
        for older in set(self.folder.glob(f"{STEP}*")) - {done}:
            shutil.rmtree(older, ignore_errors=True)

    def remove(self) -> None:
        """The run is at its end."""
        from rlhf.runtime import ranks

        if ranks.rank() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)


def _shown(path: Path) -> str:
    return path.as_posix()[path.as_posix().rindex(PLACE) :]


def checkpoints_of(
    root: Path, stage: str, declared: Declared, values: Mapping[str, Any], machine: Mapping[str, str], output: Path
) -> Checkpoints | None:
    """Of a run of this stage; None where none are wanted, or where dvc.yaml does not say what the stage depends on.

    values: the settings by dotted names. machine: what may differ from that of a saved state.
    """
    minutes = values["checkpoint.every_minutes"]
    if not minutes or declared.deps is None or declared.params is None:
        return None
    rounding = {f"engine.{name}" for name in ROUNDING}
    used = {name: x for name, x in values.items() if any(f"{name}.".startswith(f"{param}.") for param in declared.params)}
    inputs = [NAMED.sub(lambda match: str(values[match[1]]), dep) for dep in declared.deps]
    known = {path: md5_of(root / path) for path in inputs if (root / path).exists()}
    of_run = md5_of_json([stage, {name: x for name, x in used.items() if name not in rounding}, known])
    how = {name: used[name] for name in sorted(rounding & used.keys())} | dict(machine)
    folder = home_of(root) / PLACE / f"{stage}-{of_run[:16]}"
    return Checkpoints(folder, 60 * minutes, how, output, {path.name for path in output.iterdir()})
