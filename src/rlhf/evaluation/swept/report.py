"""Reads sweeps at their end: a table, the frontier, a tournament, and pictures of them, beside what the repository has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf.data.files import read_records
from rlhf.errors import UserError
from rlhf.evaluation.answers import Answers
from rlhf.evaluation.measures import best_of_n_kl_bound
from rlhf.evaluation.names import shown_point
from rlhf.evaluation.plots import by_setting, frontier
from rlhf.evaluation.plots.page import write_page
from rlhf.evaluation.points import BEST_OF_N, Point
from rlhf.evaluation.standings import N, known_points, row, standings
from rlhf.evaluation.swept import tables
from rlhf.evaluation.swept.budgets import budgets_of
from rlhf.evaluation.swept.held_against import EVALUATION, exam_seed, judged_by
from rlhf.evaluation.swept.measures import rank_agreement
from rlhf.evaluation.swept.read import SWEEP, Swept, book_of, read_sweep
from rlhf.evaluation.tournament import place_of, tournament
from rlhf.evaluation.written import POOL, RESPONSES, Samples, marks_in, read_answers
from rlhf.runtime.outputs import write_rows
from rlhf.runtime.sweeps import ledger
from rlhf.seeds import derive_seed

BEST = "best_of"
HERE = {"in": "artifacts"}  # what the repository itself has made
BOOTSTRAP = 2000  # draws of prompts and seeds behind an interval


def report_on(root: Path, sweeps: Sequence[Path], output: Path) -> str:
    """Reads sweeps side by side into one folder; a table of it, and where the rest is."""
    prompts, answers = read_answers(root / EVALUATION / RESPONSES)
    pool = read_records(root / EVALUATION / POOL, Samples)
    by = judged_by(root)
    found = {sweep: read_sweep(root, sweep, prompts, by) for sweep in sweeps}
    swept = [one for points in told_apart(found).values() for one in points]
    if not swept:
        return ""
    exam = exam_seed(root)
    seed = derive_seed(exam, "sweep")
    known = known_points(answers, pool, exam, where=HERE)
    judge = "gold" if answers["sft", "sampled"].gold else "reward"
    points = [*known, *(one.point for one in swept)]
    (sft,) = known[0].runs.values()
    stood = standings(points, sft, BOOTSTRAP, seed)
    books = [(book_of(sweep), points) for sweep, points in found.items()]
    failed = sum(job["status"] == ledger.FAILED for sweep in sweeps for _, job in ledger.jobs_of(sweep))

    output.mkdir(parents=True, exist_ok=True)
    page = tables.page(stood, swept, judge, by, [*rank_agreement(sweeps), *budgets_of(root, books)], failed)
    (output / "sweep.md").write_text(page, encoding="utf-8")
    write_rows(output / "frontier.csv", [row(standing) for standing in stood])
    frontier.draw(stood, judge, output / "frontier.png")
    write_page(stood, judge, output / "frontier.html")
    by_setting.draw(swept, judge, output / "by_setting.png")
    write_tournament([*also(answers, exam), *points], seed, output / "tournament.csv")
    return f"{page}\n{output}: sweep.md, frontier.png, frontier.html, by_setting.png, tournament.csv"


def told_apart(found: Mapping[Path, Sequence[Swept]]) -> dict[Path, list[Swept]]:
    """Points of several sweeps of one stage may differ in what their sweeps share: then by the sweeps' names.

    Raises:
        UserError: two of these have the same name.
    """
    stages = {sweep: points[0].point.method for sweep, points in found.items() if points}
    named = [(stage, sweep.resolve().name) for sweep, stage in stages.items()]
    if twice := sorted({name for stage, name in named if named.count((stage, name)) > 1}):
        raise UserError(f"several sweeps of one stage are called {', '.join(twice)}: rename a folder to tell them apart")
    alone = [sweep for sweep, stage in stages.items() if list(stages.values()).count(stage) == 1]
    return {sweep: list(points) if sweep in alone else _named(points, sweep) for sweep, points in found.items()}


def _named(points: Sequence[Swept], sweep: Path) -> list[Swept]:
    name = sweep.resolve().name
    return [replace(one, point=replace(one.point, setting={**one.point.setting, SWEEP: name})) for one in points]


def also(answers: Mapping[tuple[str, str], Answers], seed: int) -> list[Point]:
    """Who is too far from SFT for the frontier, or on it already as what n answers give on average: base, best of n."""
    best = next(model for model, _ in answers if model.startswith(f"{BEST}_"))
    n = best.removeprefix(f"{BEST}_")
    return [
        Point("base", runs={seed: marks_in(answers, "base")}),
        Point(BEST_OF_N, {N: n}, {seed: marks_in(answers, best, best_of_n_kl_bound(int(n)))}),
    ]


def write_tournament(points: Sequence[Point], seed: int, file: Path) -> None:
    """All points with answers of their own against each other: ratings, and the share of wins against each."""
    entrants = {shown_point(point): point.over_seeds("rivals") for point in points if _has_rivals(point)}
    result = tournament(entrants, BOOTSTRAP, seed)
    order = sorted(result.ratings, key=lambda name: -place_of(result.ratings[name].strength)) or list(entrants)
    lines: list[dict[str, Any]] = []
    for name in order:
        rating = result.ratings.get(name)
        ends = {"elo": rating.elo.mean, "elo_low": rating.elo.low, "elo_high": rating.elo.high} if rating else {}
        told = {"open": rating.open or "" if rating else result.open_ended or ""}
        rates = {f"against {other}": rate for other, rate in result.win_rates[name].items()}
        lines.append({"policy": name} | ends | told | rates)
    write_rows(file, lines)


def _has_rivals(point: Point) -> bool:
    return all(marks.rivals is not None for marks in point.runs.values())
