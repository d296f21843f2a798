"""What each value of a swept setting does to score, KL and evenness, every seed to be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlhf.evaluation.names import shown_setting
from rlhf.evaluation.plots.style import picture
from rlhf.evaluation.swept.read import SWEEP, Swept

PANEL = (5.2, 2.7)  # inches
Figures = Callable[[Swept], list[float]]


def draw(swept: Sequence[Swept], judge: str, path: Path) -> None:
    """A column a setting, a line a combination of the others through the means of the seeds, a dot a seed."""
    keys = list(dict.fromkeys(key for one in swept for key in one.point.setting if key != SWEEP)) or [""]
    shown: list[tuple[str, Figures]] = [
        (f"{judge} score", lambda one: [float(marks.judged.mean()) for marks in one.point.runs.values()]),
        ("KL, nats a response", lambda one: [float(marks.kl.mean()) for marks in one.point.runs.values()]),
        ("furthest fall while it learnt", lambda one: [fall for fall in one.fall.values() if fall is not None]),
    ]
    picture(path, partial(_panels, swept, keys, shown), (PANEL[0] * len(keys), PANEL[1] * len(shown)))


def _panels(swept: Sequence[Swept], keys: Sequence[str], shown: Sequence[tuple[str, Figures]], figure: Figure) -> None:
    for column, key in enumerate(keys):
        for number, (label, figures) in enumerate(shown):
            axes = figure.add_subplot(len(shown), len(keys), number * len(keys) + column + 1)
            _panel(axes, swept, key, figures)
            axes.set_ylabel(label)
            if number == len(shown) - 1:
                axes.set_xlabel(key)
            if number == 0 and len(axes.lines) > 2:
                axes.legend(frameon=False, fontsize=7)


def _panel(axes: Axes, swept: Sequence[Swept], key: str, figures: Figures) -> None:
    having = [one for one in swept if key in one.point.setting] or list(swept)
    values = list(dict.fromkeys(one.point.setting.get(key, "") for one in having))
    lines: dict[str, list[Swept]] = {}
    for one in having:
        others = shown_setting({name: value for name, value in one.point.setting.items() if name != key})
        lines.setdefault(others, []).append(one)
    for label, along in lines.items():
        told = [(values.index(one.point.setting.get(key, "")), figures(one)) for one in along if figures(one)]
        (line,) = axes.plot([x for x, _ in told], [sum(found) / len(found) for _, found in told], "-", lw=1, label=label)
        dots = [(x, y) for x, found in told for y in found]
        axes.plot([x for x, _ in dots], [y for _, y in dots], "o", ms=4, color=line.get_color(), alpha=0.7)
    axes.set_xticks(range(len(values)), values)
