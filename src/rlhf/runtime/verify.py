"""Says whether what was reproduced here is what is committed: the same bytes, or else the same figures within chance.

    python -m rlhf.runtime.verify                          # `make verify`
    python -m rlhf.runtime.verify --reference RUN1 RUN2 …  # writes the reference: repositories run with other seeds

Another kind of machine rounds otherwise, and a long training magnifies that to about what another seed does. So an
honest reproduction there is one more draw from where the seeds came from, and n seeds with a standard deviation s tell
where it falls: within t s sqrt(1 + 1/n) of their mean, with t of n − 1 degrees of freedom (Student 1908; the prediction
interval of Hahn 1969). That supposes seeds that scatter normally.

- Judged are the headlines (`HEADLINE`), k of them, each at the level 1 − 0.01/k (Bonferroni): an honest machine fails
  in at most 1 of 100 cases, however the figures hang together. Few seeds make wide intervals: only a break fails then.
- s counts for no less than the standard error over prompts, so that seeds that happen to agree do not forbid one
  response: from the figure's own 95 % interval; for a share, binomial, with one more success and one more failure.
- Every other measure is told of, not judged, where it lies outside its own 99 % interval: 1 of 100 does by chance.
  Counts, and what no seed moves, are left out.
- The effect is no matter of chance: PPO and DPO must win more than half against SFT, at the lower end of the interval.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from rlhf.errors import UserError
from rlhf.runtime.hashes import md5_of
from rlhf.runtime.messages import Values
from rlhf.runtime.outputs import write_metrics
from rlhf.runtime.processes import attempt
from rlhf.runtime.reference import (
    HEADLINE,
    Reference,
    RunResult,
    Spread,
    interval,
    read_reference,
    read_run,
    reference_of,
    refuse_other_settings,
)

REFERENCE = Path("docs/reference_metrics.json")
WINNERS = ("ppo", "dpo")
FALSE_ALARMS = 0.01  # of all that is judged together, and of each other figure


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--reference"]:
        reference = reference_of([read_run(Path(name)) for name in arguments[1:]])
        write_metrics(REFERENCE, asdict(reference))
        print(f"wrote {REFERENCE}: {len(reference.figures)} figures over seeds {', '.join(map(str, reference.seeds))}")
        return 0
    root = Path()
    lock = committed_lock(root)
    other = [path for path, md5 in outputs(lock).items() if md5_here(root, path) != md5]
    if not other:
        print(f"same bytes as the committed lock ({count_files(lock)} files)")
        return 0
    print(f"other bytes than in the committed lock: {', '.join(other)}")
    if _git(root, "diff", "HEAD", "--name-only", "--", "params.yaml"):
        print("params.yaml is not the committed one: its settings are what differs first")
    return judge(read_run(Path()), read_reference(REFERENCE))


def judge(run: RunResult, reference: Reference) -> int:
    """Prints what is out of place; 1 if anything judged is, else 0. UserError for a run with other settings."""
    refuse_other_settings(run, reference.settings, str(REFERENCE))
    judged = {name: spread for name, spread in reference.figures.items() if HEADLINE.fullmatch(name)}
    others = {name: spread for name, spread in reference.figures.items() if name not in judged}
    seeds = len(reference.seeds)
    noted = out_of_place(run.metrics, others, seeds, 1 - FALSE_ALARMS)
    wrong = out_of_place(run.metrics, judged, seeds, 1 - FALSE_ALARMS / len(judged)) + without_effect(run.metrics)
    by_chance = f"about {FALSE_ALARMS * len(others):.0f} would be by chance"
    told = f"for information, not judged: {len(noted)} of {len(others)} other figures out of place ({by_chance})"
    print("\n  ".join([told, *noted]))
    verdict = f"all {len(judged)} headline figures are within their intervals over {seeds} seeds, and PPO and DPO beat SFT"
    print("\n  ".join(["out of place:", *wrong]) if wrong else verdict)
    return 1 if wrong else 0


def out_of_place(metrics: Values, figures: Mapping[str, Spread], seeds: int, level: float) -> list[str]:
    """A line for each figure that is missing, or not where one more draw would be with this certainty."""
    lines = []
    for name, spread in figures.items():
        low, high = interval(name, spread, seeds, level)
        value, expected = metrics.get(name), f"mean of {seeds} seeds {spread.mean:.4g}"
        if value is None:
            lines.append(f"{_where(name)} is missing ({expected})")
        elif not low <= value <= high:
            lines.append(f"{_where(name)} is {value:.4g}, outside {low:.4g} … {high:.4g} ({expected})")
    return lines


def without_effect(metrics: Values) -> list[str]:
    """A line for each model that is not shown to win more than half against SFT."""
    lines = []
    for model in WINNERS:
        mean, low = (metrics.get(f"evaluate.{model}.win_rate.{end}", 0.0) for end in ("mean", "low"))
        if low <= 0.5:
            where = _where(f"evaluate.{model}.win_rate.low")
            lines.append(f"{where} is {low:.4g} (mean {mean:.4g}): {model.upper()} must beat SFT, so it must be above 0.5")
    return lines


def committed_lock(root: Path) -> dict[str, Any]:
    text = _git(root, "show", "HEAD:./dvc.lock")
    if not text:
        raise UserError("there is no dvc.lock in the last commit to compare with")
    return dict(yaml.safe_load(text))


def outputs(lock: Mapping[str, Any]) -> dict[str, str]:
    """The md5 of everything that the pipeline makes."""
    return {out["path"]: out["md5"] for out in _outs(lock)}


def count_files(lock: Mapping[str, Any]) -> int:
    return sum(out.get("nfiles", 1) for out in _outs(lock))


def md5_here(root: Path, output: str) -> str:
    if not (root / output).exists():
        raise UserError(f"{output} has not been made here: run `make reproduce` first")
    return md5_of(root / output)


def _outs(lock: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    return (out for stage in lock["stages"].values() for out in stage.get("outs", []))


def _where(name: str) -> str:
    stage, _, key = name.partition(".")
    return f"artifacts/{stage}/metrics.json: {key}"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(attempt("verify", lambda: main(sys.argv[1:])))
