"""Pictures of the result, the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    judge = "gold" if by_gold else "reward"
    entries = decoded(metrics)
    perfect = metrics["yardsticks"]["perfect"]["gold_score"] if by_gold else None
    # The log-ratio of greedy answers is no KL, and base is too far from SFT to be on the same axis.
    near = [entry for entry in entries if entry[1] == "sampled" and entry[0] != "base"]
    with mpl.rc_context(STYLE):
        _save(_scores(entries, judge, perfect), folder / "scores.png")
        _save(_against(near, _kl, judge, "KL to SFT, nats a response (best of n: at most)"), folder / "kl.png")
        if by_gold:
            reward = _against(entries, lambda figures: float(figures["reward_score"]), judge, "reward score")
            _save(reward, folder / "reward_and_gold.png")


def _kl(figures: dict[str, Any]) -> float:
    return float(figures["kl_per_response"])


def _scores(entries: Sequence[Entry], judge: str, perfect: float | None) -> Figure:
    """Every model's score beside the others', with its interval."""
    figure, axes = _axes()
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
    return figure


def _against(entries: Sequence[Entry], x: Callable[[dict[str, Any]], float], judge: str, label: str) -> Figure:
    """The judge's score over something else, a point a model."""
    figure, axes = _axes()
    for model, decoding, figures in entries:
        axes.plot(x(figures), figures[f"{judge}_score"], markersize=8, alpha=0.8, **_marker(model, decoding))
    axes.margins(0.1)
    axes.set_xlabel(label)
    axes.set_ylabel(f"{judge} score")
    decodings = list(dict.fromkeys(decoding for _, decoding, _ in entries))
    _explain(axes, list(dict.fromkeys(model for model, _, _ in entries)), decodings if len(decodings) > 1 else [])
    return figure


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, dpi=DOTS_PER_INCH, layout="constrained")
    return figure, figure.add_subplot()


def _marker(model: str, decoding: str) -> dict[str, Any]:
    colour = COLOURS.get(model, YARDSTICK_COLOUR)
    face = colour if decoding == "sampled" else "white"
    return {"marker": "o", "linestyle": "none", "color": colour, "markerfacecolor": face}


def _explain(axes: Axes, models: Sequence[str], decodings: Sequence[str]) -> None:
    for model in models:
        axes.plot([], [], label=shown_name(model), **_marker(model, "sampled"))
    for decoding in decodings:
        face = "#444444" if decoding == "sampled" else "white"
        axes.plot([], [], "o", color="#444444", markerfacecolor=face, label=decoding)
    axes.legend(frameon=False, loc="best", fontsize=9)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", metadata={"Software": None})  # no version of matplotlib among the bytes
