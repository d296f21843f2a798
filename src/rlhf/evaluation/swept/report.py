"""Reads sweeps at their end: a table, the frontier, a tournament, and pictures of them, beside what the repository has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhf.data.files import read_records
from rlhf.evaluation.answers import Answers
from rlhf.evaluation.plots import by_setting, frontier
from rlhf.evaluation.plots.page import write_page
from rlhf.evaluation.points import BEST_OF_N, Point
from rlhf.evaluation.report import shown_point
from rlhf.evaluation.standings import N, known_points, row, standings
from rlhf.evaluation.swept import tables
from rlhf.evaluation.swept.held_against import EVALUATION, exam_seed
from rlhf.evaluation.swept.read import read_sweep
from rlhf.evaluation.tournament import tournament
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
    swept = [one for sweep in sweeps for one in read_sweep(sweep, prompts)]
    if not swept:
        return ""
    exam = exam_seed(root)
    seed = derive_seed(exam, "sweep")
    known = known_points(answers, pool, exam, where=HERE)
    judge = "gold" if answers["sft", "sampled"].gold else "reward"
    points = [*known, *(one.point for one in swept)]
    (sft,) = known[0].runs.values()
    found = standings(points, sft, BOOTSTRAP, seed)
    books = [ledger.read(sweep / ledger.SWEEP) or {} for sweep in sweeps]
    settings = {"ppo": books[0]["settings"], "dpo": books[0]["settings"]} | {
        book["stage"]: book["settings"] for book in books
    }
    failed = sum(job["status"] == ledger.FAILED for sweep in sweeps for _, job in ledger.jobs_of(sweep))

    output.mkdir(parents=True, exist_ok=True)
    page = tables.page(found, swept, judge, tables.budgets_of(root, settings), failed)
    (output / "sweep.md").write_text(page, encoding="utf-8")
    write_rows(output / "frontier.csv", [row(standing) for standing in found])
    frontier.draw(found, judge, output / "frontier.png")
    write_page(found, judge, output / "frontier.html")
    by_setting.draw(swept, judge, output / "by_setting.png")
    write_tournament([*also(answers, exam), *points], seed, output / "tournament.csv")
    return page.partition("\n\n")[2].partition("\n\n")[0] + f"\n\n{output}: sweep.md, frontier.png, frontier.html, …"


def also(answers: Mapping[tuple[str, str], Answers], seed: int) -> list[Point]:
    """Who is too far from SFT for the frontier, or on it already as what n answers give on average: base, best of n."""
    best = next(model for model, _ in answers if model.startswith(f"{BEST}_"))
    return [
        Point("base", runs={seed: marks_in(answers, "base")}),
        Point(BEST_OF_N, {N: best.removeprefix(f"{BEST}_")}, {seed: marks_in(answers, best, bound=0.0)}),
    ]


def write_tournament(points: Sequence[Point], seed: int, file: Path) -> None:
    """All points with answers of their own against each other: ratings, and the share of wins against each."""
    entrants = {shown_point(point): point.over_seeds("rivals") for point in points if _has_rivals(point)}
    result = tournament(entrants, BOOTSTRAP // 10, seed)
    lines = []
    for name in entrants:
        rating = result.ratings.get(name)
        ends = {"elo": rating.elo.mean, "elo_low": rating.elo.low, "elo_high": rating.elo.high} if rating else {}
        lines.append({"policy": name} | ends | {f"against {other}": rate for other, rate in result.win_rates[name].items()})
    write_rows(file, sorted(lines, key=lambda line: -(line.get("elo") or 0.0)))


def _has_rivals(point: Point) -> bool:
    return all(marks.rivals is not None for marks in point.runs.values())
