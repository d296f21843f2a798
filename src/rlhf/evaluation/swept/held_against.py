"""What the policies of a sweep are held against: this repository's own evaluation, by the same exam and the same judges."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf.data.files import read_records
from rlhf.errors import UserError
from rlhf.evaluation.answers import GREEDY, INDEPENDENT, SAMPLED, SFT
from rlhf.evaluation.written import POOL, RESPONSES, Comparison
from rlhf.runtime.hashes import md5_of, md5_of_json
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
    inputs = inputs_of(plan.settings)
    other = [path for path in inputs if not (root / path).exists() or md5_of(root / path) != made_from.get(path)]
    if other:
        raise UserError(f"{EVALUATION} was made from another {', '.join(other)} than lies here: {MEND}")
    return held_by(root, plan.settings)


def inputs_of(settings: Mapping[str, Any]) -> list[str]:
    """What questions, answers of SFT and scores come from; settings are flat."""
    return [*INPUTS, *([settings["evaluate.scorer"]] if settings["evaluate.judge"] == "python" else [])]


def held_by(root: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """The md5 of all that answers of these settings are judged by, and of what SFT answered; that of other policies may
    change."""
    answered = [
        [comparison.to_row()["prompt"], *(comparison.answers[decoding][SFT] for decoding in (SAMPLED, INDEPENDENT, GREEDY))]
        for comparison in read_records(root / EVALUATION / RESPONSES, Comparison)
    ]
    found = {path: md5_of(root / path) if (root / path).exists() else "" for path in inputs_of(settings)}
    return found | {f"SFT's answers in {EVALUATION / RESPONSES}": md5_of_json(answered)}


def judged_by(root: Path) -> str:
    """Whose scores they are: gold rater, reward model, or a scorer and its file."""
    figures = json.loads((root / EVALUATION / "metrics.json").read_text(encoding="utf-8"))
    return str(figures["yardsticks"]["judged_by"])


def exam_seed(root: Path) -> int:
    """The seed of artifacts/evaluate: every policy of a sweep faces the exam of that, whatever seed it learnt with."""
    return int(_lock(root)["params"]["params.yaml"]["seed"])


def _lock(root: Path) -> dict[str, Any]:
    stages = read_yaml(root / "dvc.lock").get("stages") or {}
    if "evaluate" not in stages:
        raise UserError(f"dvc.lock does not say what {EVALUATION} was made from: {MEND}")
    found: dict[str, Any] = stages["evaluate"]
    return found
