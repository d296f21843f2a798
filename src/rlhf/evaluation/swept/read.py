"""The jobs of sweeps as points: those that differ in the seed alone are runs of one."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.errors import UserError
from rlhf.evaluation.points import Marks, Point
from rlhf.evaluation.raters import SENTIMENT
from rlhf.evaluation.swept.held_against import held_by
from rlhf.evaluation.written import RESPONSES, marks_in, read_answers
from rlhf.records import Messages
from rlhf.runtime.sweeps import ledger

SEED, SWEEP = "seed", "sweep"  # of several sweeps of one stage, the name of a point's own
WATCHED = {  # by the judge, in a curve
    "gold rater": "validation_gold_score",
    SENTIMENT: "validation_gold_score",
    "reward model": "validation_score",
}


@dataclass(frozen=True, slots=True)
class Swept:
    """A point of a sweep, what its training cost, and how even its way was.

    seconds: CPU seconds of each run, evaluation included. fall: of each run, the furthest that the judge's validation score
    fell below what it had been before; 0 on a way that only rises, None where it was not watched. steps: of each run, how
    many it took.
    """

    point: Point
    seconds: dict[int, float]
    fall: dict[int, float | None]
    steps: dict[int, int]


def read_sweep(root: Path, folder: Path, prompts: Sequence[Messages], judge: str) -> list[Swept]:
    """The points of a sweep in the order of their jobs. Jobs that are not done are left out.

    Raises:
        UserError: there is no sweep, or it answers other prompts than these, or was held against another exam than the
            repository's.
    """
    book = book_of(folder)
    exam = held_by(root, book["settings"])
    other = [path for path, md5 in exam.items() if book["inputs"].get(path) != md5]
    if other:
        raise UserError(f"{folder} was held against another {', '.join(other)} than lies here: run the sweep again")
    found: dict[tuple[tuple[str, str], ...], dict[int, tuple[Path, ledger.Book]]] = {}
    for place, job in ledger.jobs_of(folder):
        if job["status"] == ledger.DONE:
            setting = tuple((key, value) for key, value in job["settings"].items() if key != SEED)
            found.setdefault(setting, {})[job[SEED]] = (place, job)
    return [_swept(book["stage"], dict(setting), runs, prompts, WATCHED.get(judge)) for setting, runs in found.items()]


def book_of(folder: Path) -> ledger.Book:
    """What was asked of a sweep; UserError where there is none."""
    book = ledger.read(folder / ledger.SWEEP)
    if book is None:
        raise UserError(f"{folder} holds no sweep: {ledger.SWEEP} is not there")
    return book


def _swept(
    stage: str,
    setting: dict[str, str],
    runs: dict[int, tuple[Path, ledger.Book]],
    prompts: Sequence[Messages],
    watched: str | None,
) -> Swept:
    curves = {seed: _curve(place / "curve.csv") for seed, (place, _) in runs.items()}
    return Swept(
        point=Point(stage, setting, {seed: _marks(place, prompts) for seed, (place, _) in runs.items()}),
        seconds={seed: job["cpu_seconds"] for seed, (_, job) in runs.items()},
        fall={seed: fall_in(curve, watched) for seed, curve in curves.items()},
        steps={seed: int(curve[-1]["step"]) for seed, curve in curves.items()},
    )


def _marks(place: Path, prompts: Sequence[Messages]) -> Marks:
    file = place / ledger.EXAM / RESPONSES
    asked, answers = read_answers(file)
    if list(asked) != list(prompts):
        raise UserError(f"{file} answers other prompts than artifacts/evaluate/{RESPONSES}: they cannot be compared")
    ((name, _), *_) = answers
    return marks_in(answers, name)


def _curve(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))


def fall_in(curve: Sequence[Mapping[str, str]], watched: str | None) -> float | None:
    """The furthest fall of the watched score below its highest so far."""
    values = [float(row[watched]) for row in curve if row.get(watched)] if watched else []
    return max((max(values[: i + 1]) - value for i, value in enumerate(values)), default=None)
