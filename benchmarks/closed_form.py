"""How near PPO, DPO and their relatives come to the best policy, where that is known (docs/closed_form.md).

python -m benchmarks.closed_form            all of them: prints the table and draws docs/img/closed_form.png
python -m benchmarks.closed_form NAME …     some of them: the table alone
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

if __name__ == "__main__":  # also by its path, where Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.enumerable import ARCHITECTURES, best, kl_divergence, make_space, total_variation
from benchmarks.enumerable_runs import METHODS, Method, run
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlhf.evaluation.plots.style import STYLE
from rlhf.runtime.processes import attempt

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "img" / "closed_form.png"
SEEDS = (0, 1, 2)
NEAR = 0.02
EVERY = 4  # steps from one point of the picture to the next


@dataclass(frozen=True)
class Measured:
    """One run. path: (points, 2) of how much was seen and the total variation to π* then; the rest is of its end.

    apart: how far what the method solves is from π*. away: how far the policy is from what the method solves.
    """

    path: np.ndarray
    kl: float
    apart: float | None
    away: float | None


def measure(method: Method, architecture: str, seed: int) -> Measured:
    space = make_space(architecture, seed)
    optimum, path = best(space), []
    for step, (seen, policy) in enumerate(run(method, space, seed)):  # its steps are a multiple of EVERY
        if step % EVERY == 0:
            path.append((seen, total_variation(policy, optimum)))
    solved = method.solves(space) if method.solves else None
    return Measured(
        np.array(path),
        kl_divergence(policy, optimum),
        None if solved is None else float((solved - optimum).abs().sum() / 2),
        None if solved is None else total_variation(policy, solved),
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.closed_form", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=METHODS, metavar="NAME", help=f"of {', '.join(METHODS)}")
    names = parser.parse_args(arguments).names or list(METHODS)
    found: dict[str, list[Measured]] = {}
    torch.set_num_threads(1)
    for name in names:
        found[name] = [measure(METHODS[name], kind, seed) for kind in ARCHITECTURES for seed in SEEDS]
        print(f"{name} is done", file=sys.stderr, flush=True)
    print(table(found))
    if names == list(METHODS):
        draw(found, PICTURE)
    return 0


def table(found: dict[str, list[Measured]]) -> str:
    """A row a method; seeds in order."""
    head = (
        "",
        *(f"to π*, {kind}" for kind in ARCHITECTURES),
        "KL(π ‖ π*), nats",
        "what it solves, to π*",
        "to what it solves",
    )
    rows = [head, ("---",) * len(head)]
    for name, runs in found.items():
        ends = [f"{measured.path[-1, 1]:.3f}" for measured in runs]
        cells = [" / ".join(ends[i : i + len(SEEDS)]) for i in range(0, len(ends), len(SEEDS))]
        apart, away = _range([m.apart for m in runs]), _range([m.away for m in runs])
        rows.append((METHODS[name].name, *cells, _range([m.kl for m in runs]), apart, away))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _range(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "not known"
    return "0" if max(known) < 1e-9 else f"{min(known):.2g}–{max(known):.2g}"


def draw(found: dict[str, list[Measured]], path: Path) -> None:
    """Medians over the runs: what samples on the left, what compares pairs on the right."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 5.4), dpi=150, layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
        for name, runs in found.items():
            method = METHODS[name]
            seen, distance = np.median([measured.path for measured in runs], axis=0).T
            axes, unit = (left, 1e3) if method.ppo else (right, 1e6)
            axes.plot(seen / unit, distance, method.dashes, color=method.colour, label=method.name, linewidth=1.8)
        _finish(left, "responses sampled, thousands")
        _finish(right, "pairs compared, millions")
        left.set_ylabel("total variation to the best policy π*")
        left.annotate(f"{NEAR}", (0, NEAR), (4, 3), textcoords="offset points", color="#777777", fontsize=9)
        figure.savefig(path, format="png", metadata={"Software": None})  # no version of matplotlib among the bytes


def _finish(axes: Axes, label: str) -> None:
    axes.set_yscale("log")
    axes.set_ylim(1e-3, 1)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(left=0)
    axes.axhline(NEAR, color="#777777", linewidth=1, linestyle=":")
    axes.set_xlabel(label)
    axes.legend(frameon=False, fontsize=9, loc="lower left")


if __name__ == "__main__":
    sys.exit(attempt("closed_form", lambda: main(sys.argv[1:])))
