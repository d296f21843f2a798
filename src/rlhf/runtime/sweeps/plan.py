"""What a command line asks for: its jobs, as Hydra's sweeper will number them, and what all of them share."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.runtime import pipeline, settings
from rlhf.runtime.messages import Values, explain
from rlhf.runtime.overrides import hydra_messages

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

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
    named: bool  # whether the folder was asked for by name
    resumed: bool
    command: str


def plan(root: Path, stage: str, arguments: Sequence[str]) -> Plan | None:
    """The sweep that the arguments ask for, None where they ask for a single run.

    Raises:
        UserError: nothing is swept, or something that the stage does not read; what all jobs share is wrong, or a single
            run is to go on with a sweep.
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
        values, hydra = settings.compose_beside_hydra(root, [_first(override) for override in given])
        if not asked.multirun and hydra.mode is None:
            if values["sweep"]["resume"] is not None:
                raise UserError(f"{RESUME} is for a sweep: give its whole command again, with its -m")
            return None
        of_experiment = parser.parse_overrides([f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items()])
        overrides = [o for o in [*of_experiment, *given] if not o.key_or_group.startswith("hydra")]
        jobs = BasicSweeper.split_arguments(overrides, None)[0]
    swept = _swept(jobs)
    _check(root, stage, swept)
    _check_shared(values, swept)
    shared = settings.flatten(values)
    resume = shared.pop(RESUME)
    places = [str(override.value()) for override in given if override.key_or_group == "hydra.sweep.dir"]
    return Plan(
        stage=stage,
        swept=swept,
        jobs=[{key: job[key] for key in swept} for job in map(_as_dict, jobs)],
        settings=shared | {key: ", ".join(values) for key, values in swept.items()},
        folder=_folder(root, stage, resume, places),
        named=bool(places),
        resumed=resume is not None,
        command=shlex.join(["python", f"stages/{stage}.py", *(a for a in arguments if not a.startswith(f"{RESUME}="))]),
    )


def _first(override: Override) -> str:
    """An override with the first of its values: without any, a setting that has no default would be missing."""
    if not override.is_sweep_override():
        return override.input_line or ""
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line} has no end: give the values themselves, as in {override.key_or_group}=0.1,0.2"
        )
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


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
    """Whether a setting is in what the stage reads, or a group has some of it."""
    both = ((f"{key}.", f"{param}.") for param in params)
    return key in MANY or any(mine.startswith(read) or read.startswith(mine) for mine, read in both)


def _check_shared(values: Values, swept: Mapping[str, Sequence[str]]) -> None:
    """UserError for what would fail every job. What depends on several settings shows in each job alone."""
    try:
        Config.model_validate(values)
    except ValidationError as error:
        problems: list[Values] = [
            dict(problem) for problem in error.errors(include_url=False) if problem["type"] != "value_error"
        ]
        shared = [problem for problem in problems if not _is_swept(problem["loc"], swept)]
        if shared:
            raise UserError("\n".join(map(explain, shared))) from error


def _is_swept(location: Sequence[str | int], swept: Mapping[str, Sequence[str]]) -> bool:
    """An experiment may change everything."""
    key = ".".join(map(str, location))
    return "experiment" in swept or any(f"{key}.".startswith(f"{name}.") for name in swept)


def _folder(root: Path, stage: str, resume: str | None, given: Sequence[str]) -> Path:
    """Where the sweep lies or will lie."""
    if resume is not None:
        return (root / resume).resolve()
    if given:
        return (root / given[-1]).resolve()
    return root / "sweeps" / stage / time.strftime("%Y-%m-%d_%H-%M-%S")
