"""Pictures of the result, the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlhf.evaluation.report import decoded, shown_name

COLOURS = {"base": "#7f7f7f", "sft": "#1f77b4", "ppo": "#d62728", "dpo": "#2ca02c"}
YARDSTICK_COLOUR = "#9467bd"
STYLE: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
SIZE, DOTS_PER_INCH = (6.4, 4.0), 120  # inches
Entry = tuple[str, str, dict[str, Any]]


def draw(metrics: dict[str, Any], folder: Path) -> None:
    """scores.png and kl.png; with a gold rater reward_and_gold.png too."""
    by_gold = "perfect" in metrics["yardsticks"]
    score = "gold_score" if by_gold else "reward_score"
    label = "gold score" if by_gold else "reward score"
    entries = decoded(metrics)
    perfect = metrics["yardsticks"]["perfect"]["gold_score"] if by_gold else None
    with mpl.rc_context(STYLE):
        _scores(entries, "gold_interval" if by_gold else "reward_interval", label, perfect, folder / "scores.png")
        reached = [entry for entry in entries if "kl_per_response" in entry[2] and entry[0] != "base"]
        _against(reached, "kl_per_response", score, ("KL to SFT, nats a response", label), folder / "kl.png")
        if by_gold:
            _against(entries, "reward_score", score, ("reward score", label), folder / "reward_and_gold.png")


def _scores(entries: Sequence[Entry], interval: str, label: str, perfect: float | None, path: Path) -> None:
    figure, axes = _axes()
    models = list(dict.fromkeys(model for model, _, _ in entries))
    for model, decoding, figures in entries:
        found = figures[interval]
        place = models.index(model) + (0.12 if decoding == "greedy" else -0.12)
        ends = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
        axes.errorbar(place, found["mean"], yerr=ends, capsize=3, markersize=7, **_marker(model, decoding))
        axes.annotate(f"{found['mean']:.2f}", (place, found["mean"]), (7, -3), textcoords="offset points", fontsize=8)
    if perfect is not None:
        axes.axhline(perfect, color="#bbbbbb", linestyle="--", zorder=0)
        axes.annotate("a perfect answer", (-0.4, perfect), (0, 4), textcoords="offset points", color="#777777", fontsize=8)
    axes.set_xlim(-0.5, len(models) - 0.3)
    axes.set_xticks(range(len(models)), [shown_name(model) for model in models])
    axes.set_ylabel(f"{label} (95 % interval over prompts)")
    _save(figure, axes, path)


def _against(entries: Sequence[Entry], x: str, y: str, labels: tuple[str, str], path: Path) -> None:
    figure, axes = _axes()
    for model, decoding, figures in entries:
        axes.plot(figures[x], figures[y], markersize=8, **_marker(model, decoding))
        axes.annotate(shown_name(model), (figures[x], figures[y]), (7, 5), textcoords="offset points", fontsize=9)
    axes.margins(0.15)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    _save(figure, axes, path)


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, dpi=DOTS_PER_INCH, layout="constrained")
    return figure, figure.add_subplot()


def _marker(model: str, decoding: str) -> dict[str, Any]:
    colour = COLOURS.get(model, YARDSTICK_COLOUR)
    face = colour if decoding == "sampled" else "white"
    return {"marker": "o", "linestyle": "none", "color": colour, "markerfacecolor": face}


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    for decoding, face in (("sampled", "#444444"), ("greedy", "white")):
        axes.plot([], [], "o", color="#444444", markerfacecolor=face, label=decoding)
    axes.legend(frameon=False, loc="best", fontsize=9)
    figure.savefig(path, format="png", metadata={"Software": None})
