"""What a stage works with: its settings, what it may read, where it writes, and who is told about it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.runtime import outputs, parents, pipeline, processes, progress, tracking
from rlhf.runtime.checkpoint import Checkpoints, Resumable

if TYPE_CHECKING:
    import torch

Row = dict[str, float]
VALIDATION = "validation_"


@dataclass(frozen=True)
class Run:
    """What a stage works with: its settings, where it writes and computes, and who is told about it."""

    name: str
    config: Config
    output: Path
    device: torch.device
    root: Path
    tracker: tracking.Tracker
    declared: pipeline.Declared = field(default_factory=pipeline.Declared)
    label: str = ""  # what its lines on the screen begin with, where that is not its name
    checkpoints: Checkpoints | None = None
    rows: list[Row] = field(default_factory=list)

    def read(self, stage: str, file: str) -> Path:
        """The path of what another stage left; UserError if it is not there."""
        if not self.has(stage, file):
            raise UserError(f"artifacts/{stage}/{file} is missing: make it with `dvc repro {stage}`")
        return self.root / "artifacts" / stage / file

    def find(self, stage: str, file: str) -> Path | None:
        """The path of what another stage may have left, or None."""
        return self.read(stage, file) if self.has(stage, file) else None

    def has(self, stage: str, file: str) -> bool:
        """Whether another stage left this; LookupError for what dvc.yaml does not list among the deps."""
        path = f"artifacts/{stage}/{file}"
        if not self.declared.covers(path):
            raise LookupError(f"{path} is not among the deps of {self.name} in dvc.yaml")
        return (self.root / path).exists()

    def seed(self, *labels: str | int) -> int:
        """63 bits for one purpose, from the pipeline's seed, the stage's name and the purpose's labels."""
        from rlhf.seeds import derive_seed  # imports torch, which a misspelt setting should not have to wait for

        return derive_seed(self.config.seed, self.name, *labels)

    def say(self, what: str) -> None:
        """A line about what is under way where no row shows it for a while: `dpo` asks the reference …"""
        processes.tell(f"{self.label or self.name} {what}")

    def follow(self, rows: Iterable[Row], total: int, state: Resumable | None = None) -> Iterator[Row]:
        """Passes a loop's rows on, each with a `step` out of `total`: shown, sent to MLflow, written to curve.csv.

        state: the loop's, where it can be saved on the way: the loop, which has not begun, then goes on from where the same
        run was stopped. Its rows up to there are not passed on again; `self.rows` has them.
        """
        try:
            if state and self.checkpoints:
                yield from self._follow_and_save(rows, total, state, self.checkpoints)
            else:
                yield from self._follow(rows, total)
        finally:
            outputs.write_curve(self.output / "curve.csv", self.rows)

    def _follow(self, rows: Iterable[Row], total: int) -> Iterator[Row]:
        for row in self.show(rows, total, self._last_step()):
            self._log(row)
            yield row

    def _follow_and_save(self, rows: Iterable[Row], total: int, state: Resumable, kept: Checkpoints) -> Iterator[Row]:
        """Who asks it to stop (Ctrl-C, SIGTERM, the end of DVC or torchrun) has it saved first, unless he asks twice."""
        for row in kept.begin(state):
            self._log(row)
        if self.rows:
            self.tracker.log_tags({"resumed_from_step": str(self._last_step())})
        with processes.stopped_between_steps() as stop:
            for row in progress.show(rows, total, self.label or self.name, self._last_step()):
                self._log(row)
                yield row
                if kept.save_if_due(state, self.rows, bool(stop.asked) or parents.is_orphaned()):
                    stop.now(processes.TOGETHER)
            if stop.asked:  # what the loop does behind its last row
                stop.now()

    def show(self, rows: Iterable[Row], total: int, done: int = 0) -> Iterator[Row]:
        """Passes the rows of a loop on that leaves no curve: shown, and nothing else. done: steps before these rows."""
        for row in progress.show(rows, total, self.label or self.name, done):
            parents.leave_if_orphaned()
            yield row

    def follow_to_end(self, rows: Iterable[Row], total: int, state: Resumable | None = None) -> Row:
        """`follow` where nothing happens on the way; returns the last row."""
        for _ in self.follow(rows, total, state):
            pass
        return self.rows[-1]

    def curve(self, rows: Sequence[Row]) -> None:
        """Writes curve.csv where there is no loop to follow."""
        for row in rows:
            self._log(row)
        outputs.write_curve(self.output / "curve.csv", self.rows)

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Writes metrics.json: nested, of numbers and words."""
        outputs.write_metrics(self.output / "metrics.json", metrics)
        self.tracker.log_metrics(outputs.numbers(metrics, f"{self.name}/"), self._last_step())

    def tell_again(self) -> None:
        """Sends MLflow the figures of a metrics.json that an earlier try has left."""
        metrics = json.loads((self.output / "metrics.json").read_text(encoding="utf-8"))
        self.tracker.log_metrics(outputs.numbers(metrics, f"{self.name}/"), int(metrics.get("step", 0)))

    def log_model(self, directory: Path, row: Row | None = None) -> None:
        """Makes a model known to MLflow, tied to the step of the row it was made at (the last one) and its validation
        figures."""
        made_at = row or (self.rows[-1] if self.rows else {"step": 0})
        relative = directory.relative_to(self.output)
        name = "-".join([self.name, *(part for part in relative.parts if part != "model")])
        place = directory.relative_to(self.root) if directory.is_relative_to(self.root) else directory
        # Without the stage's name: MLflow compares runs of two stages by the names they have in common, and gives a run
        # the metrics of its models.
        figures = {key.removeprefix(VALIDATION): x for key, x in made_at.items() if key.startswith(VALIDATION)}
        self.tracker.log_model(name, place, int(made_at["step"]), outputs.numbers(figures, "validation/"))

    def _log(self, row: Row) -> None:
        self.rows.append(row)
        numbers = outputs.numbers(row, f"{self.name}/")
        step = int(numbers.pop(f"{self.name}/step"))
        self.tracker.log_metrics(numbers, step)

    def _last_step(self) -> int:
        return int(self.rows[-1]["step"]) if self.rows else 0
