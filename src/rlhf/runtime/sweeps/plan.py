"""What a command line asks for: its jobs, as Hydra's sweeper will number them, and what all of them share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.errors import UserError
from rlhf.runtime import pipeline, settings
from rlhf.runtime.messages import Values
from rlhf.runtime.overrides import hydra_messages

RESUME = "sweep.resume"
MANY = ("experiment", "seed")  # may be swept in every stage: a set of changes, and what every draw follows from


@dataclass(frozen=True, slots=True)
class Plan:
    """A sweep before it begins.

    jobs: of each job the values of the swept settings, by dotted names, in Hydra's order.
    settings: flat, what the jobs share; of a swept setting, the values that it takes.
    """

    stage: str
    swept: dict[str, list[str]]
    jobs: list[dict[str, str]]
    settings: Values
    folder: Path
    resumed: bool
    command: str


def plan(root: Path, stage: str, arguments: Sequence[str]) -> Plan | None:
    """The sweep that the arguments ask for, None where they ask for a single run.

    Raises:
        UserError: nothing is swept, or something that the stage does not read.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra._internal.utils import get_args_parser
    from hydra.core.override_parser.overrides_parser import OverridesParser

    asked = get_args_parser().parse_args(arguments)
    if asked.help or asked.hydra_help or asked.cfg or asked.info or asked.shell_completion:
        return None
    parser = OverridesParser.create()
    with hydra_messages():
        given = parser.parse_overrides(asked.overrides)
        single = [override.input_line for override in given if not override.is_sweep_override() and override.input_line]
        values, hydra = settings.compose_beside_hydra(root, single)
        if not asked.multirun and hydra.mode is None:
            return None
        of_experiment = parser.parse_overrides([f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items()])
        overrides = [o for o in [*of_experiment, *given] if not o.key_or_group.startswith("hydra")]
        jobs = BasicSweeper.split_arguments(overrides, None)[0]
    swept = _swept(jobs)
    _check(root, stage, swept)
    shared = settings.flatten(values)
    resume = shared.pop(RESUME)
    places = [o.get_value_element_as_str() for o in given if o.key_or_group == "hydra.sweep.dir"]
    folder = _folder(root, stage, resume, places)
    return Plan(
        stage=stage,
        swept=swept,
        jobs=[{key: job[key] for key in swept} for job in map(_as_dict, jobs)],
        settings=shared | {key: ", ".join(values) for key, values in swept.items()},
        folder=folder,
        resumed=resume is not None,
        command=" ".join(["python", f"stages/{stage}.py", *(a for a in arguments if not a.startswith(f"{RESUME}="))]),
    )


def _swept(jobs: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """The settings with several values, and these in order."""
    found: dict[str, dict[str, None]] = {}
    for job in jobs:
        for key, value in _as_dict(job).items():
            found.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in found.items() if len(values) > 1}


def _as_dict(job: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (text.partition("=") for text in job)}


def _check(root: Path, stage: str, swept: dict[str, list[str]]) -> None:
    if not swept:
        raise UserError(
            "nothing is swept: give a setting several values, as in seed=0,1,2, or leave -m out for a single run"
        )
    params = pipeline.declared(root, stage).params
    unread = [key for key in swept if params is not None and not _is_read(key, params)]
    if unread:
        raise UserError(
            "\n".join(
                f"{key} is not read by {stage}: all jobs would be the same; it reads {', '.join(params or ())}"
                f" (for what comes before: dvc exp run --queue -S '{key}={','.join(swept[key])}')"
                for key in unread
            )
        )


def _is_read(key: str, params: Sequence[str]) -> bool:
    return key in MANY or any(f"{key}.".startswith(f"{param}.") for param in params)


def _folder(root: Path, stage: str, resume: str | None, given: Sequence[str]) -> Path:
    """Where the sweep lies or will lie."""
    if resume is not None:
        return (root / resume).resolve()
    if given:
        return (root / given[-1].strip("'\"")).resolve()
    return root / "sweeps" / stage / time.strftime("%Y-%m-%d_%H-%M-%S")
