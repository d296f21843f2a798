"""Turns a script with a `main(run)` into a stage: a Hydra application on conf/, a DVC stage on params.yaml, an MLflow run.

    if __name__ == "__main__":
        stage(__file__)

    import torch, …

    def main(run: Run) -> None: …

What stands below is not read in that process until a run begins, and then as a module: what its libraries take to be
imported, seconds, is no time that `--help`, a message about a setting or the start of a sweep should cost.

Run directly, conf/ is composed with the command line's overrides and the outputs go to `hydra.run.dir` (`-m` sweeps, one
folder a job). Under DVC, which sets DVC_STAGE, params.yaml holds the settings and artifacts/NAME takes the outputs.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rlhf.errors import UserError
from rlhf.runtime import device, launch, overrides, parents, pipeline, processes, settings, tracking
from rlhf.runtime.checkpoint import checkpoints_of
from rlhf.runtime.checkpoint.identity import Origin, code_of
from rlhf.runtime.run import Run
from rlhf.runtime.sweeps import sweep
from rlhf.runtime.sweeps.plan import plan

if TYPE_CHECKING:
    from omegaconf import DictConfig

COMMAND_LINE = launch.without_local_rank(sys.argv[1:])  # before Hydra gets its own
LOGGED = (".json", ".csv", ".png", ".md", ".html")


def stage(file: str, reading: sweep.Reading | None = None) -> NoReturn:
    """Runs a stage script to its end and leaves with 0, 1 (what the user can mend: one message), 130 or 143 (stopped).

    file: the script's. reading: what a sweep of this stage asks of the policies that its jobs make.
    """
    script = Path(file).resolve()
    code = processes.attempt(script.stem, lambda: _launch(script, reading))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the work is done: nothing is left to close
    gc.freeze()  # nor is there garbage to be looked for, which takes the interpreter the best part of a second
    sys.exit(code)


def _dvc_arguments(name: str) -> list[str]:
    """Hydra reads params.yaml, and leaves nothing of its own (no log, no .hydra) among the outputs."""
    places = [f"hydra.run.dir=artifacts/{name}", "hydra.output_subdir=null"]
    return ["-cd", ".", "-cn", "params", *places, "hydra/job_logging=none", "hydra/hydra_logging=none"]


def _launch(script: Path, reading: sweep.Reading | None) -> int:
    """Checks the command line, and starts the one run or the sweep that it asks for; the exit code."""
    parents.end_with_parent()
    device.device_choice()
    root, arguments = script.parents[1], launch.without_local_rank(sys.argv[1:])
    if "DVC_STAGE" in os.environ:
        arguments = [*_dvc_arguments(script.stem), *arguments]
    if launch.rank():
        arguments = [*arguments, f"hydra.run.dir={launch.silence()}"]
    overrides.check_options(arguments)
    overrides.check_names(root / "conf", [text for text in arguments if "=" in text and not text.startswith("-")])
    os.chdir(root)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets exceptions out instead of printing them
    run = functools.partial(_run, script, code_of(root, pipeline.declared(root, script.stem)))
    if "DVC_STAGE" not in os.environ and (planned := plan(root, script.stem, arguments)):
        if launch.count() > 1:
            raise UserError("a sweep (-m) is started once, and a launcher has started several: run it with python alone")
        work = sweep.Work(functools.partial(_main_of, script), run)
        return sweep.sweep(root, planned, work, reading, lambda job, more: _hydra(job, script, [*arguments, *more]))
    codes: list[int] = []

    def job(composed: DictConfig) -> None:
        codes.append(processes.attempt(script.stem, lambda: run(composed)))

    _hydra(job, script, arguments)
    return max(codes, default=0)


def _hydra(job: Callable[[DictConfig], None], script: Path, arguments: Sequence[str]) -> None:
    """Lets Hydra compose the settings and call the job, once or once for every job of a sweep."""
    import hydra

    sys.argv = [str(script), *arguments]
    job.__module__ = script.stem  # Hydra names the job after it
    with overrides.hydra_messages():
        hydra.main(version_base=None, config_path=str(script.parents[1] / "conf"), config_name="config")(job)()


def _main_of(script: Path) -> Callable[[Run], None]:
    """What the script does in a run; this process may be one that was launched for a job."""
    if (stages := str(script.parent)) not in sys.path:
        sys.path.insert(0, stages)
    main: Callable[[Run], None] = importlib.import_module(script.stem).main
    return main


def _run(script: Path, code: Mapping[str, str], composed: DictConfig, job: sweep.Job | None = None) -> int:
    """One run of the stage, from composed settings to closed books. code: as it was before it was imported."""
    from hydra.core.hydra_config import HydraConfig

    values = settings.values_of(composed)
    config = settings.validate(values)
    name, root = script.stem, script.parents[1]
    declared = pipeline.declared(root, name)
    output = Path(HydraConfig.get().runtime.output_dir)
    if launch.starts_others(config, name):
        if job:
            raise UserError(f"engine.processes ({config.engine.processes}) must be 1 in a sweep: a job is one process")
        return launch.start(script, COMMAND_LINE, config.engine.processes, output)
    if job is None:
        print(settings.describe(values, declared.params), flush=True)
    processes.keep_offline(config.reaches_hub)
    label, parent = (job.name, job.parent) if job else ("", None)
    if launch.rank():
        tracker = tracking.Tracker({}, None, 0.0)  # that tells nobody
    else:
        tracker = tracking.start(root, name, settings.flatten(values), label, parent)
    start, status, kept = time.monotonic(), "FAILED", None
    try:
        main = _main_of(script)  # while the other process imports MLflow
        start = time.monotonic()
        processes.forget_peak()
        place = device.choose_device(device.device_choice(), config.data.source)
        device.pin(config.engine.threads)
        device.meet(place)
        machine = device.tags(place)
        tracker.log_tags(machine | (job.tags if job else {}))
        origin = Origin(root, name, declared, settings.flatten(values), machine, code)
        kept = checkpoints_of(origin, output, label or name)
        seen = pipeline.visible(config, declared.params)
        run = Run(name, seen, output, place, root, tracker, declared, label, checkpoints=kept)
        if job and job.trained:
            run.tell_again()
        else:
            main(run)
            if kept:
                kept.remove()
        if job and job.reading:
            (output / sweep.EXAM).mkdir()
            job.reading.examine(Run("evaluate", config, output / sweep.EXAM, place, root, tracker, label=label), job.policy)
        status = "FINISHED"
    except (KeyboardInterrupt, processes.Terminated):
        status = "KILLED"
        raise
    finally:
        if kept:
            kept.let_go()
        seconds, peak = time.monotonic() - start, processes.peak_gib()
        tracker.log_metrics({"system/wall_seconds": seconds, "system/peak_gib": peak}, 0)
        for file in sorted(path for path in output.iterdir() if path.suffix in LOGGED and path.name != sweep.JOB):
            tracker.log_file(file)
        tracker.close(status)
    return 0
