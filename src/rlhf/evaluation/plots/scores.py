"""Every model's score, and what the reward model makes of the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlhf.evaluation.figures import has_gold_scores
from rlhf.evaluation.names import shown_name
from rlhf.evaluation.plots.style import COLOURS, YARDSTICK, picture
from rlhf.evaluation.report import decoded

Entry = tuple[str, str, dict[str, Any]]


def draw(metrics: dict[str, Any], folder: Path) -> None:
    """scores.png; with gold scores reward_and_gold.png too."""
    by_gold = has_gold_scores(metrics)
    perfect = metrics["yardsticks"].get("perfect", {}).get("gold_score")
    entries = decoded(metrics)
    picture(folder / "scores.png", partial(_scores, entries, "gold" if by_gold else "reward", perfect))
    if by_gold:
        picture(folder / "reward_and_gold.png", partial(_reward_and_gold, entries))


def _scores(entries: Sequence[Entry], judge: str, perfect: float | None, figure: Figure) -> None:
    """Every model's score beside the others', with its interval."""
    axes = figure.add_subplot()
    models = list(dict.fromkeys(model for model, _, _ in entries))
    for model, decoding, figures in entries:
        found = figures[f"{judge}_interval"]
        place = models.index(model) + (0.12 if decoding == "greedy" else -0.12)
        ends = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
        axes.errorbar(place, found["mean"], yerr=ends, capsize=3, markersize=7, **_marker(model, decoding))
        axes.annotate(f"{found['mean']:.2f}", (place, found["mean"]), (7, -3), textcoords="offset points", fontsize=8)
    if perfect is not None:
        axes.axhline(perfect, color="#bbbbbb", linestyle="--", zorder=0)
        axes.annotate("a perfect answer", (-0.4, perfect), (0, 4), textcoords="offset points", color="#777777", fontsize=8)
    axes.set_xlim(-0.5, len(models) - 0.3)
    axes.set_xticks(range(len(models)), [shown_name(model) for model in models])
    axes.set_ylabel(f"{judge} score (95 % interval over prompts)")
    _explain(axes, [], ["sampled", "greedy"])


def _reward_and_gold(entries: Sequence[Entry], figure: Figure) -> None:
    """The gold score over the reward model's, a point a model."""
    axes = figure.add_subplot()
    for model, decoding, figures in entries:
        axes.plot(figures["reward_score"], figures["gold_score"], markersize=8, alpha=0.8, **_marker(model, decoding))
    axes.margins(0.1)
    axes.set_xlabel("reward score")
    axes.set_ylabel("gold score")
    _explain(axes, list(dict.fromkeys(model for model, _, _ in entries)), ["sampled", "greedy"])


def _marker(model: str, decoding: str) -> dict[str, Any]:
    colour = COLOURS.get(model, YARDSTICK)
    face = colour if decoding == "sampled" else "white"
    return {"marker": "o", "linestyle": "none", "color": colour, "markerfacecolor": face}


def _explain(axes: Axes, models: Sequence[str], decodings: Sequence[str]) -> None:
    for model in models:
        axes.plot([], [], label=shown_name(model), **_marker(model, "sampled"))
    for decoding in decodings:
        face = "#444444" if decoding == "sampled" else "white"
        axes.plot([], [], "o", color="#444444", markerfacecolor=face, label=decoding)
    axes.legend(frameon=False, loc="best", fontsize=9)
