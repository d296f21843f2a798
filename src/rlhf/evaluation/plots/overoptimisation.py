"""Gold beside the reward model's score as a policy moves away from SFT: over KL, with the fitted laws, and over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlhf.evaluation.names import shown_method
from rlhf.evaluation.overoptimisation import Law, predict
from rlhf.evaluation.plots.frontier import distance
from rlhf.evaluation.plots.style import COLOURS, SIZE, picture
from rlhf.evaluation.points import BEST_OF_N
from rlhf.evaluation.standings import Standing
from rlhf.evaluation.statistics import Floats


def draw(laws: Mapping[str, Law], found: Sequence[Standing], sft: Standing, path: Path) -> None:
    """Gains over SFT along each path, as measured and as its law has them, where one was fitted; then by training step."""
    picture(path, partial(_panels, laws, found, sft), (2 * SIZE[0], SIZE[1]))


def _panels(laws: Mapping[str, Law], found: Sequence[Standing], sft: Standing, figure: Figure) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    for method in dict.fromkeys(s.point.method for s in found):
        along = sorted((s for s in found if s.point.method == method), key=lambda s: s.kl.mean)
        places = np.array([distance(s.kl.mean) for s in along])
        _gains(left, places, along, sft, method)
        if method in laws:
            _law(left, laws[method], places, COLOURS[method])
    trained = [s for s in found if s.point.method != BEST_OF_N]
    _gains(right, np.array([int(s.point.setting["step"]) for s in trained]), trained, sft, "snapshots")
    left.set_xlabel("√KL from SFT (nats a response)")
    left.set_ylabel("gain over SFT")
    left.set_title(
        "fitted law: solid where it has a peak, else dashed; bars: 95 % intervals of gold scores",
        fontsize=8,
        color="#777777",
    )
    right.set_xlabel("training step of PPO")
    for axes in (left, right):
        axes.axhline(0, color="#bbbbbb", lw=0.8, zorder=0)
    left.legend(frameon=False, fontsize=8)


def _gains(axes: Axes, places: Floats, along: Sequence[Standing], sft: Standing, method: str) -> None:
    colour, name = COLOURS[method], shown_method(method)
    gains = [s.judged.mean - sft.judged.mean for s in along]
    arms = np.transpose([s.judged.arms for s in along])
    axes.errorbar(places, gains, yerr=arms, fmt="o", ms=4, lw=0.8, color=colour, label=f"{name}: gold")
    reward = [s.reward.mean - sft.reward.mean for s in along]
    axes.plot(places, reward, "x", ms=5, color=colour, alpha=0.6, label=f"{name}: reward model")


def _law(axes: Axes, law: Law, places: Floats, colour: str) -> None:
    """Over the distances that were seen, and no further: a law that knows no peak there knows none elsewhere. Dashed, and
    without its peak, where the data reject it or tell of none."""
    along = np.linspace(float(places.min()), float(places.max()), 200)
    axes.plot(along, predict(law, along**2), "-" if law.identified and law.fits else "--", lw=1, color=colour)
    if law.peak and law.fits:
        axes.axvline(law.peak.distance.mean, color=colour, ls=":", lw=1)
