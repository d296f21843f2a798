"""A sweep in words: a table by setting, what no other point beats, and how the comparison was made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rlhf.evaluation.points import BEST_OF_N
from rlhf.evaluation.report import MISSING, shown_interval, shown_point
from rlhf.evaluation.standings import Standing
from rlhf.evaluation.swept.read import Swept
from rlhf.runtime import markdown

DIVERGED = "diverged ({judge} score below SFT's, or less than 9 of 10 answers end)"
ENDS_AT_LEAST = 0.9
VARIES = "various"


def page(found: Sequence[Standing], swept: Sequence[Swept], judge: str, budgets: Sequence[str], failed: int) -> str:
    """The whole of sweep.md."""
    known = {id(one.point): one for one in swept}
    rows = [_row(standing, known.get(id(standing.point))) for standing in found]
    header = ["", f"{judge} score", "win rate against SFT", "at equal length", "KL, nats", "reward score", "tokens"]
    columns = [*header, "ended", "behind the best", "falls by", "CPU s"]
    parts = [
        "# What the sweep found\n",
        *markdown.table(columns, rows),
        "",
        *_frontier(found),
        "",
        *_seeds(found, swept, judge, failed),
        *_method(found, judge),
        "",
        *budgets,
    ]
    return "\n".join(parts) + "\n"


def _row(standing: Standing, swept: Swept | None) -> list[str]:
    kl = f"≤ {standing.kl.mean:.2f}" if standing.point.method == BEST_OF_N else shown_interval(standing.kl)
    behind = "the best" if standing.behind is None else shown_interval(standing.behind)
    falls = [fall for fall in swept.fall.values() if fall is not None] if swept else []
    return [
        f"{shown_point(standing.point)}{' *' if standing.pareto else ''}",
        shown_interval(standing.judged),
        shown_interval(standing.win_rate),
        MISSING if standing.win_rate_at_equal_length is None else f"{standing.win_rate_at_equal_length:.2f}",
        kl,
        f"{standing.reward.mean:.2f}",
        f"{standing.tokens:.1f}",
        f"{standing.ended:.3f}",
        behind,
        f"{max(falls):.2f}" if falls else MISSING,
        f"{fmean(swept.seconds.values()):.0f}" if swept else MISSING,
    ]


def _frontier(found: Sequence[Standing]) -> list[str]:
    kept = sorted((s for s in found if s.pareto), key=lambda s: s.kl.mean)
    path = " → ".join(f"{shown_point(s.point)} ({s.judged.mean:.2f} at {s.kl.mean:.2f})" for s in kept)
    tied = [shown_point(s.point) for s in found if s.ties_the_best and s.behind is not None]
    same = (
        f"These data cannot tell from the best: {'; '.join(tied)}." if tied else "These data tell the best from all others."
    )
    return [f"\\* No other point has a higher score at no more KL (by the means): {path}.", "", same]


def _seeds(found: Sequence[Standing], swept: Sequence[Swept], judge: str, failed: int) -> list[str]:
    """How far runs of one setting lie apart, where a point has several, and how many runs went wrong."""
    start = next(s for s in found if s.point.method == "sft").judged.mean
    runs = [marks for one in swept for marks in one.point.runs.values()]
    wrong = sum(marks.judged.mean() < start or marks.ended.mean() < ENDS_AT_LEAST for marks in runs)
    told = f"Of {len(runs)} runs {wrong} {DIVERGED.format(judge=judge)}; {failed} jobs failed."
    header = ["", "seeds", "mean of the scores", "standard deviation", "lowest", "highest"]
    rows = []
    for one in (one for one in swept if len(one.point.runs) > 1):
        means = one.point.over_seeds("judged").mean(1)
        figures = (means.mean(), means.std(ddof=1), means.min(), means.max())
        rows.append([shown_point(one.point), str(len(means)), *(f"{figure:.3f}" for figure in figures)])
    return [*markdown.table(header, rows), "", told, ""] if rows else [told, ""]


def _method(found: Sequence[Standing], judge: str) -> list[str]:
    drawn = "bootstrap intervals over prompts alone: another seed of training is another doubt, which one run cannot tell of"
    if max(len(s.point.runs) for s in found) > 1:
        drawn = "intervals over prompts (bootstrap) and, where a point has several, training seeds (Student, Satterthwaite)"
    prompts, pairs = found[0].point.over_seeds("judged").shape[1], len(found) * (len(found) - 1) // 2
    return [
        f"All points answer the same {prompts} held-out prompts, policies with the same random numbers; {judge} scores "
        f"are means over them. Brackets: 95 % {drawn}. Differences from the best are paired by prompt, and their intervals "
        f"would hold for all {pairs} pairs of points at once (Bonferroni), for the data themselves chose which is the best. "
        "A win is counted against an independent sample of SFT, a tie as half; at equal length as AlpacaEval 2 controls for "
        "it. Of best of n, scores and wins are what n of the drawn SFT answers give on average, and the KL is a bound. "
        f"`falls by`: the furthest that the validation {judge} score fell below an earlier one while a policy learnt, the "
        "worst of its runs.",
    ]


def budgets_of(root: Path, sweeps: Sequence[tuple[str, dict[str, str]]]) -> list[str]:
    """What each sweep's policies were given to learn from, for methods are compared at unequal budgets.

    sweeps: of each the stage, and its settings, flat.
    """
    label = json.loads((root / "artifacts/label/metrics.json").read_text(encoding="utf-8"))
    rankings, pairs = label["rankings"]["train"], label["pairs"]["train"]
    lines = []
    for stage, settings in sweeps:
        if stage == "ppo":
            steps, responses = (settings.get(f"ppo.{key}", VARIES) for key in ("stop.steps", "responses_per_step"))
            source = f"scored by a reward model that learnt the {rankings:,} rankings"
            lines.append(f"- PPO: {steps} rollouts of {responses} responses of its own, {source}.")
        else:
            epochs, rounds = (settings.get(f"dpo.{key}", VARIES) for key in ("epochs", "rounds"))
            lines.append(
                f"- DPO: passes over the {pairs:,} pairs of these rankings: {epochs}; rounds: {rounds} (in the first it "
                "answers nothing itself)."
            )
    lines.append("- Best of n: nothing is trained; n responses and n scores for every answer it gives.")
    return ["Budgets are not equal; what lies in artifacts has that of params.yaml:", "", *dict.fromkeys(lines)]
