"""Complete runs of the pipeline, and where one more of them would fall (`rlhf.runtime.verify` says why and how)."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from pathlib import Path
from typing import Any

import yaml
from scipy import stats

from rlhf.data.files import parse_json
from rlhf.errors import UserError
from rlhf.runtime.guard import ABSENT, differences
from rlhf.runtime.messages import Values, shown
from rlhf.runtime.settings import NO_RESULT, flatten, read_snapshot, values_of

GUARD = "config"  # the one stage without metrics
HEADLINE = re.compile(
    r"evaluate\.(ppo|dpo)\.(gold_score|win_rate\.mean|kl_per_response|response_tokens|ended|greedy\.gold_score)"
    r"|evaluate\.(base|sft)\.gold_score|reward\.test\.accuracy|sft\.validation_loss"
)
POSSIBLE = {"win_rate.mean": (0.0, 1.0), "ended": (0.0, 1.0), "accuracy": (0.0, 1.0), "response_tokens": (0.0, inf)}
STATED = {"gold_score": "gold_interval", "reward_score": "reward_interval", "mean": ""}  # where a 95 % interval lies
COUNTED = {"ended": "evaluate.yardsticks.prompts", "accuracy": "reward.test.pairs"}  # what a share is a share of
UNCERTAINTY = re.compile(r".*(_interval\.mean|\.low|\.high|\.standard_error)")  # says of another figure how sure it is
NORMAL_95 = statistics.NormalDist().inv_cdf(0.975)
SHOWN_SETTINGS = 5


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one complete run of the pipeline says, by dotted names: evaluate.ppo.gold_score."""

    path: Path
    seed: int
    settings: Values  # but the seed, and where MLflow keeps the run
    metrics: Values


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over seeds, in its own unit."""

    mean: float
    sd: float
    floor: float  # the standard error over prompts; 0 where none is known


@dataclass(frozen=True, slots=True)
class Reference:
    """What runs that differ in nothing but the seed had in common."""

    settings: Values
    seeds: list[int]
    figures: dict[str, Spread]


def interval(name: str, spread: Spread, seeds: int, level: float) -> tuple[float, float]:
    """Student's prediction interval for one more draw, within what is possible of this figure."""
    reach = student(level, seeds - 1) * max(spread.sd, spread.floor) * sqrt(1 + 1 / seeds)
    least, most = next((limits for end, limits in POSSIBLE.items() if name.endswith(end)), (-inf, inf))
    return max(least, spread.mean - reach), min(most, spread.mean + reach)


def student(level: float, degrees: int) -> float:
    """The t that a variable of Student's distribution stays within, on both sides, with probability `level` < 1."""
    return float(stats.t.ppf((1 + level) / 2, degrees))


def reference_of(runs: Sequence[RunResult]) -> Reference:
    """Every measure that moves with the seed, over runs of which each has a seed of its own and all else in common."""
    check_comparable(runs)
    if len(runs) < 2:
        raise UserError("a spread needs at least two runs: name a repository for each seed")
    common = [name for name in runs[0].metrics if all(_is_measure(name, run.metrics.get(name)) for run in runs)]
    spreads = {name: spread_of(name, [run.metrics for run in runs]) for name in common}
    moved = {name: spread for name, spread in spreads.items() if max(spread.sd, spread.floor) > 0}
    return Reference(runs[0].settings, [run.seed for run in runs], moved)


def spread_of(name: str, runs: Sequence[Values]) -> Spread:
    values = [run[name] for run in runs]
    floor = statistics.fmean(standard_error(name, run) for run in runs) if HEADLINE.fullmatch(name) else 0.0
    return Spread(statistics.fmean(values), statistics.stdev(values), floor)


def standard_error(name: str, metrics: Values) -> float:
    """Over prompts, of one run's figure; 0 where the run does not say."""
    stem, leaf = name.rpartition(".")[0], _leaf(name)
    if leaf in STATED:
        beside = f"{stem}.{STATED[leaf]}".rstrip(".")
        return float(metrics[f"{beside}.high"] - metrics[f"{beside}.low"]) / (2 * NORMAL_95)
    if leaf in COUNTED:
        count = metrics[COUNTED[leaf]] + 2
        share = (metrics[name] * (count - 2) + 1) / count
        return sqrt(share * (1 - share) / count)
    return 0.0


def check_comparable(runs: Sequence[RunResult]) -> None:
    """UserError unless these runs have the settings of the first, and each a seed of its own."""
    for i, run in enumerate(runs):
        refuse_other_settings(run, runs[0].settings, str(runs[0].path / "params.yaml"))
        if twin := next((other for other in runs[:i] if other.seed == run.seed), None):
            raise UserError(f"{twin.path} and {run.path} both have seed {run.seed}: name each seed once")


def refuse_other_settings(run: RunResult, settings: Values, whose: str) -> None:
    changed = differences(run.settings, settings)
    if changed:
        mine = run.path / "params.yaml"
        lines = [f"  {key}: {_side(here)} in {mine}, {_side(there)} in {whose}" for key, (here, there) in changed.items()]
        hidden = [f"  … and {len(lines) - SHOWN_SETTINGS} more"] if len(lines) > SHOWN_SETTINGS else []
        why = "figures of other settings cannot be compared; only the seed may differ:"
        raise UserError("\n".join([why, *lines[:SHOWN_SETTINGS], *hidden, "Set them alike, and run the pipeline again."]))


def read_run(path: Path) -> RunResult:
    """Of the repository at `path`, or whose artifacts/ that is. UserError if the pipeline has not come to its end there."""
    root = path.parent if path.name == "artifacts" else path
    stages = [name for name in yaml.safe_load(_read(root / "dvc.yaml"))["stages"] if name != GUARD]
    files = [f"artifacts/{name}/metrics.json" for name in stages]
    settings = flatten(values_of(read_snapshot(root)))
    metrics = {Path(file).parent.name: parse_json(root / file, _read(root / file)) for file in files}
    compared = {key: value for key, value in settings.items() if key != "seed" and not key.startswith(NO_RESULT)}
    return RunResult(root, settings["seed"], compared, flatten(metrics))


def read_reference(path: Path) -> Reference:
    """UserError if there is none."""
    if not path.is_file():
        raise UserError(f"{path} is missing: write it with `python -m rlhf.runtime.verify --reference RUN1 RUN2 …`")
    held = parse_json(path, path.read_text(encoding="utf-8"))
    return Reference(held["settings"], held["seeds"], {name: Spread(**figure) for name, figure in held["figures"].items()})


def _is_measure(name: str, value: Any) -> bool:
    """Whole numbers are counts: of rows, of steps, of parameters."""
    return isinstance(value, float) and not UNCERTAINTY.fullmatch(name)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _side(value: Any) -> str:
    return "nothing" if value is ABSENT else shown(value)


def _read(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is missing: name the root of a repository in which the pipeline has run")
    return path.read_text(encoding="utf-8")
