"""What the policies of a sweep are held against: this repository's own evaluation, by the same exam and the same judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf.errors import UserError
from rlhf.evaluation.written import POOL, RESPONSES
from rlhf.runtime.hashes import md5_of
from rlhf.runtime.messages import shown
from rlhf.runtime.pipeline import read_yaml
from rlhf.runtime.settings import flatten
from rlhf.runtime.sweeps.plan import Plan

EVALUATION = Path("artifacts") / "evaluate"
INPUTS = ("artifacts/prepare", "artifacts/sft/model", "artifacts/reward/model")
SETTINGS = ("evaluate.judge", "evaluate.temperature", "data.max_response_tokens", "model.max_tokens", "engine.dtype")
MEND = "bring it up to date with `dvc repro evaluate`"


def check(root: Path, plan: Plan) -> dict[str, str]:
    """What the sweep's policies are held against; UserError where that is another exam, or other judges, than those of
    artifacts/evaluate."""
    for name in (RESPONSES, POOL):
        if not (root / EVALUATION / name).is_file():
            raise UserError(f"{EVALUATION / name} is missing, and the sweep is held against what it tells: {MEND}")
    lock = _lock(root)
    made_from = {dep["path"]: dep["md5"] for dep in lock["deps"]}
    recorded = flatten(lock["params"]["params.yaml"])
    pairs = {key: (plan.settings[key], recorded.get(key)) for key in SETTINGS}
    lines = [
        f"{key} is {shown(here)} here, {shown(there)} in {EVALUATION}: the sweep is held against that"
        for key, (here, there) in pairs.items()
        if here != there
    ]
    if lines:
        raise UserError("\n".join(lines))
    inputs = [*INPUTS, plan.settings["evaluate.scorer"]] if plan.settings["evaluate.judge"] == "python" else INPUTS
    other = [path for path in inputs if not (root / path).exists() or md5_of(root / path) != made_from.get(path)]
    if other:
        raise UserError(f"{EVALUATION} was made from another {', '.join(other)} than lies here: {MEND}")
    return held_by(root)


def held_by(root: Path) -> dict[str, str]:
    """The md5 of what SFT answered and of all that it was judged by, by path."""
    return {path: md5_of(root / path) for path in (*INPUTS, (EVALUATION / RESPONSES).as_posix())}


def exam_seed(root: Path) -> int:
    """The seed of artifacts/evaluate: every policy of a sweep faces the exam of that, whatever seed it learnt with."""
    return int(_lock(root)["params"]["params.yaml"]["seed"])


def _lock(root: Path) -> dict[str, Any]:
    stages = read_yaml(root / "dvc.lock").get("stages") or {}
    if "evaluate" not in stages:
        raise UserError(f"dvc.lock does not say what {EVALUATION} was made from: {MEND}")
    found: dict[str, Any] = stages["evaluate"]
    return found
