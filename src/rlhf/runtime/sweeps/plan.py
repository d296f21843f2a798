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
    from omegaconf import DictConfig

RESUME = "sweep.resume"
MANY = ("experiment", "seed")  # may be swept in every stage: a set of changes, and what every draw follows from


@dataclass(frozen=True, slots=True)
class Plan:
    """A sweep before it begins.

    jobs: of each job the values of the swept settings, by dotted names, in Hydra's order.
    settings: flat, what the jobs share; of what they do not, the values that it takes in them.
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
        UserError: nothing is swept, or something that the stage does not read; two jobs would be the same, or all of them
            wrong; or a single run is to go on with a sweep.
    """
    from hydra._internal.utils import get_args_parser

    asked = get_args_parser().parse_args(arguments)
    if asked.help or asked.hydra_help or asked.cfg or asked.info or asked.shell_completion:
        return None
    found = _expand(root, stage, asked.overrides, asked.multirun)
    if found is None:
        return None
    jobs, place = found
    swept = _swept(jobs)
    _check(root, stage, swept)
    composed = [settings.compose_beside_hydra(root, job)[0] for job in jobs]
    _refuse_what_is_wrong_everywhere(composed)
    flat = [settings.flatten(values) for values in composed]
    (resume, *_) = [values.pop(RESUME) for values in flat]
    values_of_jobs = [{key: job[key] for key in swept} for job in map(_as_dict, jobs)]
    _refuse_twins(values_of_jobs, flat)
    return Plan(
        stage=stage,
        swept=swept,
        jobs=values_of_jobs,
        settings=_side_by_side(flat) | {key: ", ".join(values) for key, values in swept.items()},
        folder=(root / (resume or place or f"sweeps/{stage}/{time.strftime('%Y-%m-%d_%H-%M-%S')}")).resolve(),
        named=place is not None,
        resumed=resume is not None,
        command=shlex.join(["python", f"stages/{stage}.py", *(a for a in arguments if not a.startswith(f"{RESUME}="))]),
    )


def _expand(root: Path, stage: str, given: Sequence[str], multirun: bool) -> tuple[list[list[str]], str | None] | None:
    """The overrides of every job, and the folder that was asked for, if any; None where it is a single run."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    with hydra_messages():
        parsed = parser.parse_overrides(list(given))
        values, hydra = settings.compose_beside_hydra(root, [_first(override) for override in parsed])
        if not multirun and hydra.mode is None:
            if values["sweep"]["resume"] is not None:
                raise UserError(f"{RESUME} is for a sweep: give its whole command again, with its -m")
            return None
        of_experiment = parser.parse_overrides([f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items()])
        overrides = [o for o in [*of_experiment, *parsed] if not o.key_or_group.startswith("hydra")]
        return BasicSweeper.split_arguments(overrides, None)[0], _place(root, stage, hydra)


def _place(root: Path, stage: str, hydra: DictConfig) -> str | None:
    """The folder that the command line or an experiment asks for; None for the usual one."""
    from omegaconf import OmegaConf, open_dict

    usual, asked = (
        OmegaConf.to_container(found.sweep, resolve=False)
        for found in (OmegaConf.load(root / "conf" / "config.yaml").hydra, hydra)
    )
    assert isinstance(usual, dict)
    assert isinstance(asked, dict)
    if asked["dir"] == usual["dir"]:
        return None
    with open_dict(hydra):
        hydra.job.name = stage
    return str(hydra.sweep.dir)


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
    return {key: value for key, _, value in (text.lstrip("+").partition("=") for text in job)}


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


def _refuse_what_is_wrong_everywhere(composed: Sequence[Values]) -> None:
    """UserError for what would fail every job; what fails some of them shows in these alone."""
    problems = [dict.fromkeys(_problems(values)) for values in composed]
    everywhere = [problem for problem in problems[0] if all(problem in of_job for of_job in problems)]
    if everywhere:
        raise UserError("\n".join(everywhere))


def _problems(values: Values) -> list[str]:
    try:
        Config.model_validate(values)
    except ValidationError as error:
        return [explain(dict(problem)) for problem in error.errors(include_url=False)]
    return []


def _refuse_twins(jobs: Sequence[Mapping[str, str]], composed: Sequence[Values]) -> None:
    """UserError for two jobs that would do the same, under whatever names."""
    for number, values in enumerate(composed):
        first = composed.index(values)
        if first != number:
            one, other = (", ".join(f"{key}={value}" for key, value in jobs[i].items()) for i in (first, number))
            raise UserError(f"jobs {first} ({one}) and {number} ({other}) would be the same: name every value once")


def _side_by_side(composed: Sequence[Values]) -> Values:
    """What the jobs share, and of what they do not, the values that it takes in any of them."""
    found: Values = {}
    for key in dict.fromkeys(key for values in composed for key in values):
        taken = [values[key] for values in composed if key in values]
        alike = len(taken) == len(composed) and all(value == taken[0] for value in taken)
        found[key] = taken[0] if alike else ", ".join(dict.fromkeys(map(str, taken)))
    return found
