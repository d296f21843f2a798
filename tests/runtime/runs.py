"""A small complete run of the pipeline, as it lies in a repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PROMPTS, PAIRS = 631, 2958


def model(win_rate: float = 0.8, gold_score: float = 2.5, ended: float = 1.0) -> dict[str, Any]:
    """What evaluate says of one model; both intervals reach 0.05 to either side."""
    return {
        "gold_score": gold_score,
        "gold_interval": {"mean": gold_score, "low": gold_score - 0.05, "high": gold_score + 0.05},
        "win_rate": {"mean": win_rate, "low": win_rate - 0.05, "high": win_rate + 0.05},
        "wins": win_rate - 0.05,
        "ties": 0.1,
        "losses": 0.95 - win_rate,
        "ended": ended,
    }


def evaluation(prompts: int = PROMPTS, **models: dict[str, Any]) -> dict[str, Any]:
    return {"ppo": model(), "dpo": model()} | models | {"yardsticks": {"prompts": prompts, "judged_by": "gold rater"}}


def write_run(root: Path, seed: int, evaluate: dict[str, Any], loss: float = 0.4, settings: str = "ppo: {lr: 0.1}") -> Path:
    """A repository at `root`; `loss` is a figure that is not judged, of a stage that is not evaluate."""
    stages = {"base": {"validation_loss": loss, "lr": 0.004, "step": 100 + seed}, "evaluate": evaluate}
    for stage, metrics in stages.items():
        (root / "artifacts" / stage).mkdir(parents=True, exist_ok=True)
        (root / "artifacts" / stage / "metrics.json").write_text(json.dumps(metrics))
    (root / "dvc.yaml").write_text(json.dumps({"stages": {"config": {}} | {stage: {} for stage in stages}}))
    (root / "params.yaml").write_text(f"seed: {seed}\ntracking: {{experiment: number {seed}}}\n{settings}\n")
    return root
