"""The jobs of sweeps as points: those that differ in the seed alone are runs of one."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.errors import UserError
from rlhf.evaluation.points import Marks, Point
from rlhf.evaluation.written import RESPONSES, marks_in, read_answers
from rlhf.records import Messages
from rlhf.runtime.sweeps import ledger
from rlhf.runtime.sweeps.table import EXAM

SEED, SWEEP = "seed", "sweep"  # of several sweeps that are read together, the name of a point's own
WATCHED = ("validation_gold_score", "validation_score")  # of a curve: what all methods have comes first


@dataclass(frozen=True, slots=True)
class Swept:
    """A point of a sweep, what its training cost, and how even its way was.

    seconds: CPU seconds of each run, evaluation included. fall: of each run, the furthest that the watched score fell below
    what it had been before, in its own unit; 0 on a way that only rises, None where nothing was watched.
    """

    point: Point
    seconds: dict[int, float]
    fall: dict[int, float | None]


def read_sweep(folder: Path, prompts: Sequence[Messages], exam: Mapping[str, str]) -> list[Swept]:
    """The points of a sweep in the order of their jobs. Jobs that are not done are left out.

    Raises:
        UserError: there is no sweep, or it answers other prompts than these, or was held against another exam.
    """
    book = ledger.read(folder / ledger.SWEEP)
    if book is None:
        raise UserError(f"{folder} holds no sweep: {ledger.SWEEP} is not there")
    other = [path for path, md5 in exam.items() if book["inputs"].get(path) != md5]
    if other:
        raise UserError(f"{folder} was held against another {', '.join(other)} than lies here: run the sweep again")
    found: dict[tuple[tuple[str, str], ...], dict[int, tuple[Path, ledger.Book]]] = {}
    for place, job in ledger.jobs_of(folder):
        if job["status"] == ledger.DONE:
            setting = tuple((key, value) for key, value in job["settings"].items() if key != SEED)
            seed = int(job["settings"].get(SEED, book["settings"][SEED]))
            found.setdefault(setting, {})[seed] = (place, job)
    return [_swept(book["stage"], dict(setting), runs, prompts) for setting, runs in found.items()]


def _swept(
    stage: str, setting: dict[str, str], runs: dict[int, tuple[Path, ledger.Book]], prompts: Sequence[Messages]
) -> Swept:
    return Swept(
        point=Point(stage, setting, {seed: _marks(place, prompts) for seed, (place, _) in runs.items()}),
        seconds={seed: job["cpu_seconds"] for seed, (_, job) in runs.items()},
        fall={seed: fall_in(place / "curve.csv") for seed, (place, _) in runs.items()},
    )


def _marks(place: Path, prompts: Sequence[Messages]) -> Marks:
    file = place / EXAM / RESPONSES
    asked, answers = read_answers(file)
    if list(asked) != list(prompts):
        raise UserError(f"{file} answers other prompts than artifacts/evaluate/{RESPONSES}: they cannot be compared")
    ((name, _), *_) = answers
    return marks_in(answers, name)


def fall_in(curve: Path) -> float | None:
    """The furthest fall of the watched score below its highest so far."""
    with curve.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    watched = [[float(row[name]) for row in rows if row.get(name)] for name in WATCHED]
    values = next((found for found in watched if found), [])
    return max((max(values[: i + 1]) - value for i, value in enumerate(values)), default=None)
