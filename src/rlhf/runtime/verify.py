"""Says whether what was reproduced here is what is committed: the same bytes, or else the same figures within chance.

    python -m rlhf.runtime.verify                               # `make verify`
    python -m rlhf.runtime.verify --reference METRICS.json ...  # writes the intervals, from runs that differ in the seed

Another kind of machine rounds otherwise, and a long training magnifies that to about what another seed does. So a
figure agrees if it lies in the interval in which one more seed would, with 99 % certainty (Student's t).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rlhf.errors import UserError
from rlhf.runtime.hashes import md5_of
from rlhf.runtime.outputs import numbers, write_metrics
from rlhf.runtime.processes import attempt

METRICS = Path("artifacts/evaluate/metrics.json")
REFERENCE = Path("docs/reference_metrics.json")
STUDENT_99 = (63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250)  # two-sided, for 1, 2, … degrees of freedom

Interval = dict[str, float]


def main(arguments: Sequence[str]) -> int:
    root = Path.cwd()
    if arguments[:1] == ["--reference"]:
        runs = [numbers(_read_json(Path(name))) for name in arguments[1:]]
        write_metrics(root / REFERENCE, intervals(runs))
        print(f"wrote {REFERENCE}: {len(runs[0])} figures from {len(runs)} runs")
        return 0
    lock = committed_lock(root)
    other = [path for path, md5 in outputs(lock).items() if md5_here(root / path) != md5]
    if not other:
        print(f"same bytes as the committed lock ({count_files(lock)} files)")
        return 0
    print(f"other bytes than in the committed lock: {', '.join(other)}")
    if _git(root, "diff", "HEAD", "--name-only", "--", "params.yaml"):
        print("params.yaml is not the committed one: its settings are what differs first")
    wrong = out_of_place(numbers(_read_json(root / METRICS)), _read_json(root / REFERENCE))
    print("\n".join(wrong) or f"every figure of {METRICS} is within its interval over seeds")
    return 1 if wrong else 0


def intervals(runs: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    """Figure by figure, where one more run like these would fall with 99 % certainty: mean ± t · s · sqrt(1 + 1/n)."""
    if len(runs) < 2:
        raise UserError("an interval needs at least two runs: give one metrics.json per seed")
    margin = STUDENT_99[min(len(runs) - 1, len(STUDENT_99)) - 1] * (1 + 1 / len(runs)) ** 0.5
    found = {}
    for name in sorted(set(runs[0]).intersection(*runs[1:])):
        values = [run[name] for run in runs]
        centre, width = statistics.fmean(values), margin * statistics.stdev(values)
        found[name] = {"low": centre - width, "high": centre + width}
    return found


def out_of_place(figures: Mapping[str, float], reference: Mapping[str, Interval]) -> list[str]:
    """A line for each figure that is missing or outside its interval."""
    missing = [f"{name}: missing" for name in reference if name not in figures]
    outside = [
        f"{name}: {figures[name]:.6g} is outside {interval['low']:.6g} … {interval['high']:.6g}"
        for name, interval in reference.items()
        if name in figures and not interval["low"] <= figures[name] <= interval["high"]
    ]
    return missing + outside


def committed_lock(root: Path) -> dict[str, Any]:
    text = _git(root, "show", "HEAD:./dvc.lock")
    if not text:
        raise UserError("there is no dvc.lock in the last commit to compare with")
    return dict(yaml.safe_load(text))


def outputs(lock: Mapping[str, Any]) -> dict[str, str]:
    """The md5 of everything that the pipeline makes."""
    return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage.get("outs", [])}


def count_files(lock: Mapping[str, Any]) -> int:
    return sum(out.get("nfiles", 1) for stage in lock["stages"].values() for out in stage.get("outs", []))


def md5_here(path: Path) -> str:
    if not path.exists():
        raise UserError(f"{path.name} has not been made here: run `make reproduce` first")
    return md5_of(path)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} is missing")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(attempt("verify", lambda: main(sys.argv[1:])))
