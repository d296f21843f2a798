"""Sets runs that differ in the seed side by side, as a table for docs/log.md: python benchmarks/over_seeds.py RUN1 RUN2 …

A RUN is a repository in which the pipeline has run, or its artifacts/. Win rates have an interval over seeds and prompts:
seeds are drawn with replacement, and for each its prompts, by the wins, ties and losses of each (the bootstrap of two
stages, Davison and Hinkley 1997, section 3.8). With n seeds it is too narrow by about sqrt(1 − 1/n).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlhf.errors import UserError
from rlhf.evaluation.statistics import LEVEL, Interval
from rlhf.runtime.processes import attempt
from rlhf.runtime.reference import RunResult, check_comparable, read_run

SAMPLES = 4000
SEED = 0  # of the draws: the same runs make the same table
MODEL = re.compile(r"evaluate\.(\w+)\.win_rate\.mean")
VALUES = np.array([1.0, 0.5, 0.0])  # of a win, a tie and a loss


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "python benchmarks/over_seeds.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="at least two")
    runs = [read_run(folder) for folder in parser.parse_args(arguments).runs]
    if len(runs) < 2:
        raise UserError("name at least two repositories, run with seeds of their own")
    check_comparable(runs)
    print(table(runs))
    return 0


def table(runs: Sequence[RunResult]) -> str:
    """A row a model; a cell has a figure of each run, in order, or a mean with its interval and then that."""
    columns = ("gold, sampled", "way to perfect", "win rate against SFT", "KL, nats", "tokens", "ended", "gold, greedy")
    head = ("", *columns, "greedy win rate")
    seeds, prompts = (" / ".join(map(str, found)) for found in ([run.seed for run in runs], map(prompts_of, runs)))
    about = f"Seeds {seeds}; {prompts} test prompts. In brackets {LEVEL:.0%} intervals over seeds and prompts."
    models = [match[1] for name in runs[0].metrics if (match := MODEL.fullmatch(name))]
    rows = [head, ("---",) * len(head), *(row(runs, model) for model in models)]
    return "\n".join([about, "", *(f"| {' | '.join(cells)} |" for cells in rows)])


def row(runs: Sequence[RunResult], model: str) -> tuple[str, ...]:
    sampled, greedy = f"evaluate.{model}", f"evaluate.{model}.greedy"
    bound = "≤ " if f"{sampled}.kl_bound" in runs[0].metrics else ""
    return (
        model,
        by_seed(runs, f"{sampled}.gold_score", ".2f"),
        by_seed(runs, f"{sampled}.share_closed", ".0%"),
        win_rate(runs, sampled),
        bound + by_seed(runs, f"{sampled}.kl_per_response", ".2f"),
        by_seed(runs, f"{sampled}.response_tokens", ".1f"),
        by_seed(runs, f"{sampled}.ended", ".3f"),
        by_seed(runs, f"{greedy}.gold_score", ".2f"),
        win_rate(runs, greedy),
    )


def by_seed(runs: Sequence[RunResult], name: str, form: str) -> str:
    """One figure of each run; nothing where the runs have none."""
    return " / ".join(format(run.metrics[name], form) for run in runs) if name in runs[0].metrics else ""


def win_rate(runs: Sequence[RunResult], decoding: str) -> str:
    if f"{decoding}.wins" not in runs[0].metrics:
        return ""
    shares = [[run.metrics[f"{decoding}.{result}"] for result in ("wins", "ties", "losses")] for run in runs]
    found = over_seeds(np.array(shares), np.array([prompts_of(run) for run in runs]))
    each = by_seed(runs, f"{decoding}.win_rate.mean", ".2f")
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}] ({each})"


def over_seeds(shares: np.ndarray, prompts: np.ndarray) -> Interval:
    """The mean win rate of S runs, with its interval over seeds and prompts.

    shares: (S, 3) of wins, ties and losses. prompts: (S,) how many there were.
    """
    generator = np.random.default_rng(SEED)
    drawn = generator.integers(len(prompts), size=(SAMPLES, len(prompts)))
    results = generator.multinomial(prompts[drawn], shares[drawn])
    rates = (results @ VALUES / prompts[drawn]).mean(1)
    low, high = np.quantile(rates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float((shares @ VALUES).mean()), float(low), float(high))


def prompts_of(run: RunResult) -> int:
    return int(run.metrics["evaluate.yardsticks.prompts"])


if __name__ == "__main__":
    sys.exit(attempt("over_seeds", lambda: main(sys.argv[1:])))
