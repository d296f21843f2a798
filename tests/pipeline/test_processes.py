"""Stages with more than one process, and with adapters, as a user runs them: what is left is what one process leaves."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.helpers import assert_near
from tests.pipeline.clone import Clone, contents, only
from tests.pipeline.conftest import SMOKE

TWO = "engine.processes=2"


def metrics(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))


def curve(folder: Path) -> list[dict[str, str]]:
    with (folder / "curve.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def runs_of(clone: Clone, stage: str) -> int:
    code = "import sys, mlflow; print(len(mlflow.search_runs(filter_string=f\"tags.mlflow.runName = '{sys.argv[1]}'\")))"
    return int(clone.run("python", "-c", code, stage).stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_a_stage_in_two_processes_leaves_what_one_leaves(copy: Clone, engine: str) -> None:
    """Two times the optimizer steps of a smoke test, so that rounding stays rounding."""
    few = ("sft.epochs=1", "optimizer.eps=1e-4", "sft.lr=1e-3")
    tracked = runs_of(copy, "sft")
    copy.stage("sft", SMOKE, *few, "hydra.run.dir=runs/one")
    done = copy.stage("sft", SMOKE, *few, f"engine={engine}", TWO, "hydra.run.dir=runs/two")
    assert "too few rows" not in done.stdout
    one, two = copy.root / "runs" / "one", copy.root / "runs" / "two"
    assert {path.name for path in copy.root.joinpath("runs").iterdir()} == {"one", "two"}
    assert set(contents(two / "model")) == set(contents(one / "model"))
    for row, expected in zip(curve(two), curve(one), strict=True):
        assert_near([float(row[name] or 0) for name in expected], [float(x or 0) for x in expected.values()], 1e-4)
    for name, value in metrics(one).items():
        assert_near(metrics(two)[name], value, 1e-4)
    ours, theirs = (AutoModelForCausalLM.from_pretrained(folder / "model").state_dict() for folder in (two, one))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-4
    assert runs_of(copy, "sft") == tracked + 2


@pytest.mark.slow
@pytest.mark.parametrize("stages", [["dpo"], ["reward", "ppo"]], ids=["dpo", "ppo"])
def test_adapters_on_a_trunk_in_parts_learn_what_they_learn_on_a_whole_one(copy: Clone, stages: list[str]) -> None:
    """All models that PPO needs stand on the one trunk, the reward model by its adapter."""
    for stage in stages:
        few = (SMOKE, "lora.rank=4", "optimizer.eps=1e-4")
        one, two = (copy.root / "runs" / f"{stage}_{number}" for number in ("one", "two"))
        copy.stage(stage, *few, f"hydra.run.dir=runs/{one.name}")
        copy.stage(stage, *few, "engine=zero3", TWO, f"hydra.run.dir=runs/{two.name}")
        for row, expected in zip(curve(two), curve(one), strict=True):
            sums = [name for name in expected if "accuracy" not in name]  # of pairs that are equal but for rounding
            assert_near([float(row[name] or 0) for name in sums], [float(expected[name] or 0) for name in sums], 1e-4)
        ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (two, one))
        assert ours.keys() == theirs.keys()
        assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5
        shutil.rmtree(copy.artifact(stage, "model"))
        shutil.copytree(one / "model", copy.artifact(stage, "model"))


@pytest.mark.slow
def test_ppo_in_two_processes_runs_to_its_end_and_one_of_them_writes(copy: Clone) -> None:
    done = copy.stage("ppo", SMOKE, "engine=zero2", TWO, "ppo.responses_per_minibatch=1")
    assert done.stdout.count("engine: a step has too few rows for 2 processes") == 1
    output = only(copy.root / "runs" / "ppo")
    assert {"model", "metrics.json", "curve.csv", "snapshots", "samples.md"} <= {path.name for path in output.iterdir()}
    assert set(contents(output / "model")) == set(contents(copy.artifact("ppo", "model")))
    assert metrics(output)["last_step"] == 2
    assert done.stdout.count("ppo 2/2 (100%)") + done.stderr.count("ppo 2/2 (100%)") == 1


@pytest.mark.slow
def test_two_processes_and_a_sweep_do_not_go_together(copy: Clone) -> None:
    done = copy.stage("ppo", "-m", SMOKE, "ppo.kl_ctl=0.2,0.4", "engine=zero2", TWO, code=1)
    assert "engine.processes (2) must be 1 in a sweep: a job is one process" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "reward", "dpo", "ppo"])
def test_adapters_and_merged_models_are_both_written(copy: Clone, stage: str) -> None:
    copy.stage(stage, SMOKE, "lora.rank=4")
    output = only(copy.root / "runs" / stage)
    assert {"adapter_config.json", "adapter_model.safetensors"} == {
        path.name for path in (output / "model" / "adapter").iterdir()
    }
    plain = {name for name in contents(copy.artifact(stage, "model")) if not name.startswith("adapter")}
    assert {name for name in contents(output / "model") if not name.startswith("adapter")} == plain
    settings = json.loads((output / "model" / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    before = {"sft": "base"}.get(stage, "sft")
    assert settings["base_model_name_or_path"] == f"artifacts/{before}/model"
    if stage != "reward":
        merged = AutoModelForCausalLM.from_pretrained(output / "model")
        base = AutoModelForCausalLM.from_pretrained(copy.artifact(before, "model"))
        moved = [n for n, w in merged.state_dict().items() if not torch.equal(w, base.state_dict()[n])]
        assert moved
        assert all("proj" in name for name in moved)
