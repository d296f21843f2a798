"""What all pictures have in common: size, colours, and the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

YARDSTICK = "#9467bd"  # of what is there to compare with
COLOURS = {
    "base": "#7f7f7f",
    "sft": "#1f77b4",
    "ppo": "#d62728",
    "dpo": "#2ca02c",
    "best_of_n": YARDSTICK,
    "snapshots": "#ff9896",
}
STYLE: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
SIZE, DOTS_PER_INCH = (6.4, 4.0), 120  # inches


def picture(path: Path, draw: Callable[[Figure], None], size: tuple[float, float] = SIZE) -> None:
    """Lets `draw` fill an empty figure of so many inches, and writes it as PNG."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
        draw(figure)
        figure.savefig(path, format="png", metadata={"Software": None})  # no version of matplotlib among the bytes
