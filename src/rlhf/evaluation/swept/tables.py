"""A sweep in words: a table by setting, what no other point beats, and how the comparison was made."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from rlhf.evaluation.names import MISSING, shown_interval, shown_point
from rlhf.evaluation.points import BEST_OF_N
from rlhf.evaluation.standings import Standing
from rlhf.evaluation.swept.read import Swept
from rlhf.runtime import markdown

ENDS_AT_LEAST = 0.9  # of the answers of a run that has not diverged


def page(
    found: Sequence[Standing], swept: Sequence[Swept], judge: str, judged_by: str, notes: Sequence[str], failed: int
) -> str:
    """The whole of sweep.md."""
    known = {id(one.point): one for one in swept}
    rows = [_row(standing, known.get(id(standing.point)), judge) for standing in found]
    reward = ["reward model's score"] if judge == "gold" else []
    columns = ["", f"{judge} score", "win rate against SFT", "at equal length", "KL, nats", *reward, "tokens", "ended"]
    parts = [
        "# What the sweep found\n",
        *markdown.table([*columns, "behind the best", "falls by", "CPU s"], rows),
        "",
        *_frontier(found),
        "",
        *_seeds(found, swept, judge, failed),
        *_method(found, judge, judged_by),
        "",
        *notes,
    ]
    return "\n".join(parts) + "\n"


def _row(standing: Standing, swept: Swept | None, judge: str) -> list[str]:
    kl = f"≤ {standing.kl.mean:.2f}" if standing.point.method == BEST_OF_N else shown_interval(standing.kl)
    falls = [fall for fall in swept.fall.values() if fall is not None] if swept else []
    return [
        f"{shown_point(standing.point)}{' *' if standing.pareto else ''}",
        shown_interval(standing.judged),
        shown_interval(standing.win_rate),
        MISSING if standing.win_rate_at_equal_length is None else f"{standing.win_rate_at_equal_length:.2f}",
        kl,
        *([f"{standing.reward.mean:.2f}"] if judge == "gold" else []),
        f"{standing.tokens:.1f}",
        f"{standing.ended:.3f}",
        "the best" if standing.behind is None else shown_interval(standing.behind),
        f"{fmean(falls):.2f}" if falls else MISSING,
        f"{fmean(swept.seconds.values()):.0f}" if swept else MISSING,
    ]


def _frontier(found: Sequence[Standing]) -> list[str]:
    kept = sorted((s for s in found if s.pareto), key=lambda s: s.kl.mean)
    path = " → ".join(f"{shown_point(s.point)} ({s.judged.mean:.2f} at {s.kl.mean:.2f})" for s in kept)
    tied = [shown_point(s.point) for s in found if s.ties_the_best and s.behind is not None]
    same = f"These answers do not tell from the best: {'; '.join(tied)}." if tied else "All others are behind the best."
    if any(len(s.point.runs) == 1 for s in found if s.point.method in ("ppo", "dpo")):
        same += (
            " Of a policy that was trained once this compares what lies here, not its settings: another seed gives another "
            "policy, and how far from this one, one run cannot tell (seed=0,1,2 does)."
        )
    return [f"\\* No other point has a higher score at no more KL (by the means): {path}.", "", same]


def _seeds(found: Sequence[Standing], swept: Sequence[Swept], judge: str, failed: int) -> list[str]:
    """How far runs of one setting lie apart, where a point has several, and how many runs went wrong."""
    start = next(s for s in found if s.point.method == "sft")
    runs = [marks for one in swept for marks in one.point.runs.values()]
    diverged = sum(run.reward.mean() < start.reward.mean or run.ended.mean() < ENDS_AT_LEAST for run in runs)
    below = sum(run.judged.mean() < start.judged.mean for run in runs)
    told = (
        f"Of {len(runs)} runs {diverged} diverged (a lower reward model's score than SFT's, or less than 9 of 10 answers "
        f"end), {below} ended below SFT's {judge} score; {failed} jobs failed."
    )
    header = ["", "seeds", "mean of the scores", "standard deviation", "lowest", "highest"]
    rows = []
    for one in (one for one in swept if len(one.point.runs) > 1):
        means = one.point.over_seeds("judged").mean(1)
        figures = (means.mean(), means.std(ddof=1), means.min(), means.max())
        rows.append([shown_point(one.point), str(len(means)), *(f"{figure:.3f}" for figure in figures)])
    return [*markdown.table(header, rows), "", told, ""] if rows else [told, ""]


def _method(found: Sequence[Standing], judge: str, judged_by: str) -> list[str]:
    drawn = "bootstrap intervals over prompts"
    if max(len(s.point.runs) for s in found) > 1:
        drawn += ", and where a point has several runs over these, too (Student, Satterthwaite)"
    prompts, pairs = found[0].point.over_seeds("judged").shape[1], len(found) * (len(found) - 1) // 2
    told = [
        f"All points answer the same {prompts} held-out prompts, policies with the same random numbers, judged by the "
        f"{judged_by}; {judge} scores are means over the prompts. Brackets: 95 % {drawn}. Differences from the best are "
        f"paired by prompt, and their intervals would hold for all {pairs} pairs of points at once (Bonferroni). The best "
        "of many was chosen by these very scores, so that its own is rather too high: new prompts would tell.",
        "A win is counted against an independent sample of SFT, a tie as half; at equal length as AlpacaEval 2 controls for "
        "it. Of best of n, scores and wins are what n of the drawn SFT answers give on average, and the KL is a bound. "
        f"`falls by`: the furthest that the validation {judge} score fell below an earlier one while a policy learnt, the "
        "mean of its runs; as the score wavers by chance, so a little fall means nothing.",
    ]
    if judge != "gold":
        told.append("PPO climbs this very reward model, and best of n chooses by it: that they lead here is no proof.")
    return "\n\n".join(told).split("\n")
