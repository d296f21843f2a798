"""A repository that has evaluated, and a sweep of PPO in it: two prices of KL, two seeds each, and a job that failed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from rlhf.data.files import write_records
from rlhf.evaluation.answers import SAMPLED, Answers
from rlhf.evaluation.contest import contest
from rlhf.evaluation.figures import Yardstick
from rlhf.evaluation.swept.held_against import INPUTS, SETTINGS, held_by
from rlhf.evaluation.written import POOL, RESPONSES, comparisons, samples
from rlhf.models.policy import PreTrainedModel
from rlhf.runtime.hashes import md5_of
from rlhf.runtime.sweeps import ledger
from tests.evaluation.conftest import SEED, Table, everybody

KL_CTLS, SEEDS, FAILED = ("0.1", "0.3"), (0, 1), 4
BUDGET = {"ppo.responses_per_step": 128, "ppo.reward_from": "reward_model", "dpo.epochs": 1, "dpo.rounds": 1}
SETTLED = {
    "evaluate.judge": "auto",
    "evaluate.scorer": "conf/evaluate/default.yaml",
    "evaluate.temperature": 1.0,
    "data.max_response_tokens": 40,
    "model.max_tokens": 128,
    "engine.dtype": "float32",
}


@dataclass(frozen=True)
class Books:
    """A repository and the folder of its sweep."""

    root: Path
    sweep: Path


@pytest.fixture
def books(table: Table, yardsticks: dict[str, Yardstick], pool: list[Answers], tmp_path: Path) -> Books:
    evaluated(table, yardsticks, pool, tmp_path)
    sweep = tmp_path / "sweeps" / "ppo" / "now"
    jobs = [{"ppo.kl_ctl": value, "seed": str(seed)} for value in KL_CTLS for seed in SEEDS]
    jobs.append({"ppo.kl_ctl": "9", "seed": "0"})
    for number, values in enumerate(jobs):
        place = sweep / str(number)
        (place / "evaluation").mkdir(parents=True)
        if number == FAILED:
            ledger.write(place / ledger.JOB, {"status": "failed", "settings": values, "message": "too dear"})
            continue
        done = {"status": "done", "settings": values, "seed": int(values["seed"]), "cpu_seconds": 10.0 + number}
        ledger.write(place / ledger.JOB, done)
        name = "ppo " + str(values)
        policy: PreTrainedModel = table.policies["base" if values["ppo.kl_ctl"] == "0.1" else "sft"]()
        answered = list(contest({name: lambda policy=policy: policy}, table.exam, table.judges, yardsticks, SEED))  # type: ignore[misc]
        write_records(place / "evaluation" / RESPONSES, comparisons(table.exam.prompts, answered))
        (place / "curve.csv").write_text(
            "step,validation_score,validation_gold_score\n0,1.0,0\n5,3.0,2\n10,,\n15,2.5,1.75\n"
        )
    settings = {"seed": "0, 1"} | BUDGET | SETTLED
    about = {"stage": "ppo", "jobs": jobs, "settings": settings, "inputs": held_by(tmp_path, settings)}
    ledger.write(sweep / ledger.SWEEP, about)
    return Books(tmp_path, sweep)


def evaluated(table: Table, yardsticks: dict[str, Yardstick], pool: list[Answers], root: Path) -> None:
    """artifacts/ as far as a sweep looks, and the dvc.lock that goes with it; ppo and dpo are base by other names."""
    policies = table.policies | {"ppo": table.policies["base"], "dpo": table.policies["base"]}
    folder = root / "artifacts" / "evaluate"
    folder.mkdir(parents=True)
    answered = everybody(replace(table, policies=policies), table.judges, yardsticks, pool)
    write_records(folder / RESPONSES, comparisons(table.exam.prompts, answered))
    write_records(folder / POOL, samples(table.exam.prompts, pool))
    judge = "gold rater" if table.judges.rater else "reward model"
    (folder / "metrics.json").write_text(json.dumps({"yardsticks": {"judged_by": judge}}))
    for name in INPUTS:
        (root / name).mkdir(parents=True)
        (root / name / "file").write_text(name)
    (root / "artifacts" / "label").mkdir()
    (root / "artifacts" / "label" / "metrics.json").write_text(
        json.dumps({"rankings": {"train": 4999}, "pairs": {"train": 29725}})
    )
    params: dict[str, object] = {"seed": 7}
    for key in SETTINGS:
        section, _, name = key.partition(".")
        params.setdefault(section, {})[name] = SETTLED[key]  # type: ignore[index]
    deps = [{"path": name, "md5": md5_of(root / name)} for name in INPUTS]
    lock = {"stages": {"evaluate": {"deps": deps, "params": {"params.yaml": params}}}}
    (root / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert yardsticks[SAMPLED].perfect is not None
