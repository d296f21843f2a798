"""What an evaluation leaves: answers, tables, the frontier, the laws of over-optimisation, and pictures of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlhf.config import Evaluate
from rlhf.data.files import write_records
from rlhf.evaluation import report
from rlhf.evaluation.answers import Answers, Contestant, Figures
from rlhf.evaluation.contest import metrics_of
from rlhf.evaluation.exam import Exam, Judges
from rlhf.evaluation.figures import has_gold_scores
from rlhf.evaluation.paths import SNAPSHOTS, Way, laws_along, path_points, snapshot_points
from rlhf.evaluation.plots import frontier as frontier_plot
from rlhf.evaluation.plots import overoptimisation as overoptimisation_plot
from rlhf.evaluation.plots import scores as scores_plot
from rlhf.evaluation.points import Marks
from rlhf.evaluation.standings import known_points, row, standings
from rlhf.evaluation.written import POOL, RESPONSES, Samples, comparisons, read_answers, samples
from rlhf.runtime.outputs import write_metrics, write_rows
from rlhf.seeds import derive_seed


def write_results(
    folder: Path,
    exam: Exam,
    judges: Judges,
    contestants: Sequence[Contestant],
    way: Way,
    pool: Sequence[Answers],
    about: Figures,
    settings: Evaluate,
    seed: int,
) -> Figures:
    """Writes everything but metrics.json, whose content it returns."""
    write_records(folder / RESPONSES, comparisons(exam.prompts, contestants))
    drawn = samples(exam.prompts, pool)
    write_records(folder / POOL, drawn)
    metrics = metrics_of(contestants, about)
    metrics["yardsticks"] |= write_frontier(folder, drawn, way, settings.bootstrap_samples, seed, judges.rater is not None)
    write_metrics(folder / "summary.json", summary(metrics))
    (folder / "table.md").write_text(report.table(metrics), encoding="utf-8")
    chosen = report.spread(exam.families, settings.shown_prompts)
    (folder / "side_by_side.md").write_text(report.side_by_side(exam.prompts, contestants, chosen), encoding="utf-8")
    scores_plot.draw(metrics, folder)
    return metrics


def summary(metrics: Figures) -> Figures:
    """The few figures that a table of experiments has room for; sampled answers."""
    judge = "gold_score" if has_gold_scores(metrics) else "reward_score"
    best_of_n = next(name for name in metrics if name.startswith("best_of_"))
    found: Figures = {model: {judge: metrics[model][judge]} for model in ("sft", best_of_n)}
    for model in ("ppo", "dpo"):
        figures = metrics[model]
        found[model] = {
            judge: figures[judge],
            "win_rate": figures["win_rate"]["mean"],
            "kl_per_response": figures["kl_per_response"],
        }
    law = metrics["yardsticks"].get("overoptimisation", {}).get(SNAPSHOTS, {})
    if best := law.get("best"):
        fitted = {
            "alpha": law["alpha"]["mean"],
            "beta": law["beta"]["mean"],
            "misfit": law["residual"],
            "by_chance": law["chance"],
        }
        found[SNAPSHOTS] = {"best_gain": best["gain"]["mean"], "at_kl": best["kl"]} | fitted
    if peak := law.get("peak"):
        found[SNAPSHOTS] |= {"peak_gain": peak["gain"]["mean"], "peak_at_kl": peak["kl"]["mean"]}
    return found


def write_frontier(
    folder: Path, pool: Sequence[Samples], way: Way, bootstrap_samples: int, seed: int, by_gold: bool
) -> Figures:
    """frontier.csv and frontier.png; with gold scores the laws too, and their picture."""
    _, answers = read_answers(folder / RESPONSES)
    points = [*known_points(answers, pool, seed, where={}), *snapshot_points(way, seed)]
    sft: Marks = next(iter(points[0].runs.values()))
    draws = derive_seed(seed, "bootstrap")
    found = standings(points, sft, bootstrap_samples, draws)
    write_rows(folder / "frontier.csv", [row(standing) for standing in found])
    frontier_plot.draw(found, "gold" if by_gold else "reward", folder / "frontier.png")
    if not by_gold:
        return {}
    along = path_points(points, way)
    laws, said = laws_along(along, sft, bootstrap_samples, draws)
    start, *stood = standings([points[0], *along], sft, bootstrap_samples, draws)
    overoptimisation_plot.draw(laws, stood, start, folder / "overoptimisation.png")
    return {"overoptimisation": said}
