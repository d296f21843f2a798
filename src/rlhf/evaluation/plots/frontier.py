"""What each method buys with its KL: the judge's score and the reward model's over the distance from SFT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from rlhf.evaluation.names import shown_method, shown_setting
from rlhf.evaluation.plots.style import COLOURS, picture
from rlhf.evaluation.points import BEST_OF_N
from rlhf.evaluation.standings import Standing
from rlhf.evaluation.statistics import Floats, Interval

LINED = (BEST_OF_N, "snapshots")  # what is one path, and not points of their own
SIZE = (11.0, 4.6)  # inches
ROOM = (0.3, 0.05)  # shares of the axes that a label takes up


def draw(found: Sequence[Standing], judge: str, path: Path) -> None:
    """The judge's score beside the reward model's where they are two."""
    panels: list[tuple[str, Callable[[Standing], Interval]]] = [(f"{judge} score", lambda s: s.judged)]
    panels += [("reward model's score", lambda s: s.reward)] if judge == "gold" else []
    picture(path, partial(_panels, found, panels), SIZE)


def _panels(found: Sequence[Standing], panels: Sequence[tuple[str, Callable[[Standing], Interval]]], figure: Figure) -> None:
    for number, (label, score) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        _points(axes, found, score)
        _axes(axes, label)
        if number == 0:
            _ring(axes, [s for s in found if s.pareto], score)
            _name_the_best(axes, [s for s in found if s.pareto], score)
            axes.legend(frameon=False, fontsize=8, loc="best")


def _points(axes: Axes, found: Sequence[Standing], score: Callable[[Standing], Interval]) -> None:
    """A point each, with both intervals."""
    for method in dict.fromkeys(s.point.method for s in found):
        of_method = sorted((s for s in found if s.point.method == method), key=lambda s: s.kl.mean)
        line = "-" if method in LINED else "none"
        x, y = [distance(s.kl.mean) for s in of_method], [score(s).mean for s in of_method]
        y_ends = np.transpose([score(s).arms for s in of_method])
        x_ends = np.transpose([across(s.kl).arms for s in of_method])
        colour = COLOURS.get(method, COLOURS["ppo"])
        axes.errorbar(
            x,
            y,
            yerr=y_ends,
            xerr=x_ends,
            fmt="o",
            ms=4,
            lw=0.8,
            ls=line,
            color=colour,
            label=shown_method(method),
            alpha=0.85,
        )


def _ring(axes: Axes, kept: Sequence[Standing], score: Callable[[Standing], Interval]) -> None:
    """Around those that no other beats by the judge."""
    x, y = [distance(s.kl.mean) for s in kept], [score(s).mean for s in kept]
    axes.plot(x, y, "o", ms=9, mfc="none", mec="#444444", mew=1.0, label="no other has more at no more KL")


def _name_the_best(axes: Axes, kept: Sequence[Standing], score: Callable[[Standing], Interval]) -> None:
    """Settings beside the ringed points, from the best down, as far as there is room between them."""
    placed: list[tuple[float, float]] = []
    for standing in sorted((s for s in kept if s.point.setting), key=lambda s: -score(s).mean):
        place = (distance(standing.kl.mean), score(standing).mean)
        x, y = axes.transAxes.inverted().transform(axes.transData.transform(place))
        if any(abs(x - a) < ROOM[0] and abs(y - b) < ROOM[1] for a, b in placed):
            continue
        placed.append((x, y))
        axes.annotate(
            shown_setting(standing.point.setting), place, (6, -9), textcoords="offset points", fontsize=7, color="#444444"
        )


def _axes(axes: Axes, label: str) -> None:
    """Distance below, KL above: where KL is small the score goes with its root."""
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    axes.set_xlabel("√KL from SFT (nats a response)")
    axes.set_ylabel(f"{label} (95 % interval)")
    axes.spines["top"].set_visible(True)
    above = axes.secondary_xaxis("top", functions=(_signed_square, _signed_root))
    above.set_xlabel("KL, nats a response (best of n: at most)")


def across(kl: Interval) -> Interval:
    return Interval(distance(kl.mean), distance(kl.low), distance(kl.high))


def distance(kl: float) -> float:
    """√KL; an estimate may fall below 0, where a divergence cannot."""
    return sqrt(max(kl, 0.0))


def _signed_square(x: ArrayLike) -> Floats:
    found: Floats = np.sign(x) * np.square(x)
    return found


def _signed_root(x: ArrayLike) -> Floats:
    found: Floats = np.sign(x) * np.sqrt(np.abs(x))
    return found
