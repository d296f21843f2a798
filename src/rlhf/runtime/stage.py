"""Turns a `main(run)` into a stage: a Hydra application on conf/, a DVC stage on params.yaml, an MLflow run of its own.

    if __name__ == "__main__":
        stage(main)

Run directly, conf/ is composed with the command line's overrides and the outputs go to `hydra.run.dir` (`-m` sweeps, one
folder a job). Under DVC, which sets DVC_STAGE, params.yaml holds the settings and artifacts/NAME takes the outputs.
"""

from __future__ import annotations

import functools
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.runtime import device, outputs, overrides, pipeline, processes, progress, settings, tracking

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

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
        print(f"{self.name} {what}", flush=True)

    def follow(self, rows: Iterable[Row], total: int) -> Iterator[Row]:
        """Passes a loop's rows on, each with a `step` out of `total`: shown, sent to MLflow, written to curve.csv."""
        try:
            for row in progress.show(rows, total, self.name):
                processes.leave_if_orphaned()
                self._log(row)
                yield row
        finally:
            outputs.write_curve(self.output / "curve.csv", self.rows)

    def follow_to_end(self, rows: Iterable[Row], total: int) -> Row:
        """`follow` where nothing happens on the way; returns the last row."""
        for _ in self.follow(rows, total):
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


def stage(main: Callable[[Run], None]) -> NoReturn:
    """Runs a stage script to its end and leaves with 0, 1 (what the user can mend: one message), 130 or 143 (stopped)."""
    script = Path(main.__code__.co_filename).resolve()
    code = processes.attempt(script.stem, lambda: _launch(main, script))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the work is done: nothing is left to close
    sys.exit(code)


def _dvc_arguments(name: str) -> list[str]:
    """Hydra reads params.yaml, and leaves nothing of its own (no log, no .hydra) among the outputs."""
    places = [f"hydra.run.dir=artifacts/{name}", "hydra.output_subdir=null"]
    return ["-cd", ".", "-cn", "params", *places, "hydra/job_logging=none", "hydra/hydra_logging=none"]


def _launch(main: Callable[[Run], None], script: Path) -> int:
    """Lets Hydra compose the settings and call the stage, once or once a job of a sweep; the worst exit code."""
    import hydra

    processes.end_with_parent()
    device.device_choice()
    root, arguments = script.parents[1], sys.argv[1:]
    if "DVC_STAGE" in os.environ:
        arguments = [*_dvc_arguments(script.stem), *arguments]
    overrides.check_options(arguments)
    overrides.check_names(root / "conf", [text for text in arguments if "=" in text and not text.startswith("-")])
    os.chdir(root)
    codes: list[int] = []

    @functools.wraps(main)  # Hydra calls the job after the script that it finds beneath
    def job(composed: DictConfig) -> None:
        codes.append(processes.attempt(script.stem, lambda: _run(main, script, composed)))

    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets exceptions out instead of printing them
    sys.argv = [str(script), *arguments]
    with overrides.hydra_messages():
        hydra.main(version_base=None, config_path=str(root / "conf"), config_name="config")(job)()
    return max(codes, default=0)


def _run(main: Callable[[Run], None], script: Path, composed: DictConfig) -> int:
    """One run of the stage, from composed settings to closed books."""
    from hydra.core.hydra_config import HydraConfig

    values = settings.values_of(composed)
    config = settings.validate(values)
    name, root = script.stem, script.parents[1]
    declared = pipeline.declared(root, name)
    print(settings.describe(values, declared.params), flush=True)
    output = Path(HydraConfig.get().runtime.output_dir)
    processes.keep_offline(config.model.source)
    tracker = tracking.start(root, name, settings.flatten(values))
    start, status = time.monotonic(), "FAILED"
    try:
        place = device.choose_device(device.device_choice(), config.data.source)
        device.pin(config.engine.threads)
        tracker.log_tags(device.tags(place))
        main(Run(name, pipeline.visible(config, declared.params), output, place, root, tracker, declared))
        status = "FINISHED"
    except (KeyboardInterrupt, processes.Terminated):
        status = "KILLED"
        raise
    finally:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB, from the KiB of Linux
        tracker.log_metrics({"system/wall_seconds": time.monotonic() - start, "system/peak_gib": peak}, 0)
        for file in sorted(path for path in output.iterdir() if path.suffix in (".json", ".csv", ".png", ".md")):
            tracker.log_file(file)
        tracker.close(status)
    return 0
