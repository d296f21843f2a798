"""A real sweep of PPO, two by two with joblib: killed half way and gone on with, it is the one that was left alone."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.clone import SECONDS, Clone, contents
from tests.pipeline.conftest import SMOKE

GRID = ("-m", SMOKE, "ppo.kl_ctl=0.1,0.6", "ppo.clip_range=0.1,0.2")  # the last one is as in the pipeline
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
TIMES = ("seconds", "cpu_seconds")

ASK = """
import json
import mlflow

runs = mlflow.search_runs(output_format="list", filter_string="tags.sweep = '{sweep}'")
print(json.dumps([{{
    "id": run.info.run_id, "name": run.info.run_name, "status": run.info.status,
    "parent": run.data.tags.get("mlflow.parentRunId"), "params": run.data.params, "metrics": run.data.metrics,
    "files": [file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)],
}} for run in runs]))
"""


def runs_of(clone: Clone, sweep: Path) -> list[dict[str, Any]]:
    """What MLflow has of a sweep, the parent first, then the jobs by their names."""
    asked = ASK.format(sweep=sweep.relative_to(clone.root).as_posix())
    found = json.loads(clone.run("python", "-c", asked).stdout.splitlines()[-1])
    return sorted(found, key=lambda run: (run["parent"] is not None, run["name"]))


def rows_of(sweep: Path) -> list[dict[str, str]]:
    """sweep.csv without what time it took."""
    with (sweep / "sweep.csv").open() as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def results(folder: Path) -> dict[str, str]:
    """All that a sweep leaves, but for its books, which tell of times, and what Hydra notes."""
    books = ("job.json", "job.lock", "sweep.json", "sweep.csv", "sweep.md", "multirun.yaml")
    found = contents(folder)
    return {
        name: digest
        for name, digest in found.items()
        if Path(name).name not in books and ".hydra" not in name and not name.endswith(".log")
    }


@pytest.fixture(scope="module")
def left_alone(shared: Clone) -> Iterator[Path]:
    """The sweep from its beginning to its end, one job after the other."""
    before, status = contents(shared.artifact()), shared.git("status", "--porcelain")
    shared.stage("ppo", *GRID, "hydra.sweep.dir=sweeps/ppo/alone")
    assert contents(shared.artifact()) == before
    assert json.loads(shared.dvc("status", "--json").stdout) == {}
    assert shared.git("status", "--porcelain") == status
    return shared.root / "sweeps" / "ppo" / "alone"


def test_every_job_is_a_row_a_child_and_a_folder(shared: Clone, left_alone: Path) -> None:
    rows = rows_of(left_alone)
    assert [(row["job"], row["status"], row["ppo.kl_ctl"], row["ppo.clip_range"]) for row in rows] == [
        ("0", "done", "0.1", "0.1"),
        ("1", "done", "0.1", "0.2"),
        ("2", "done", "0.6", "0.1"),
        ("3", "done", "0.6", "0.2"),
    ]
    parent, *children = runs_of(shared, left_alone)
    assert (parent["name"], parent["status"], parent["parent"]) == ("ppo sweep", "FINISHED", None)
    assert parent["params"]["ppo.kl_ctl"] == "0.1, 0.6"
    assert {"sweep.csv", "sweep.md", "frontier.png", "frontier.html", "by_setting.png"} <= set(parent["files"])
    for number, (row, child) in enumerate(zip(rows, children, strict=True)):
        assert (child["name"], child["status"], child["parent"]) == (f"ppo #{number}", "FINISHED", parent["id"])
        assert {key: child["params"][key] for key in ("ppo.kl_ctl", "ppo.clip_range")} == {
            key: row[key] for key in ("ppo.kl_ctl", "ppo.clip_range")
        }
        assert child["metrics"]["evaluate/gold_score"] == float(row["gold_score"])
        assert child["metrics"]["ppo/kl_per_response"] != 0
        figures = json.loads((left_alone / str(number) / "evaluation" / "metrics.json").read_text())
        assert figures["gold_score"] == float(row["gold_score"])


def test_the_job_with_the_settings_of_the_pipeline_makes_and_tells_the_same(shared: Clone, left_alone: Path) -> None:
    """The same policy, and the same evaluator, to the last digit."""
    job = left_alone / "3"
    ours = json.loads((job / "evaluation" / "metrics.json").read_text())
    theirs = json.loads(shared.artifact("evaluate", "metrics.json").read_text())["ppo"]
    assert ours == theirs
    assert contents(job / "model") == contents(shared.artifact("ppo", "model"))


def test_a_sweep_killed_half_way_and_gone_on_with_is_the_one_that_was_left_alone(shared: Clone, left_alone: Path) -> None:
    place = shared.root / "sweeps" / "ppo" / "killed"
    command = ["python", "stages/ppo.py", *GRID, *JOBLIB, "hydra.sweep.dir=sweeps/ppo/killed"]
    with subprocess.Popen(command, cwd=shared.root, env=shared.environment(), start_new_session=True) as sweep:
        deadline = time.monotonic() + SECONDS
        while not any('"done"' in job.read_text() for job in place.glob("*/job.json")):
            assert sweep.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(sweep.pid, signal.SIGKILL)
    statuses = [json.loads(job.read_text())["status"] for job in sorted(place.glob("*/job.json"))]
    assert "done" in statuses
    assert statuses.count("done") < 4

    done = shared.stage("ppo", *GRID, *JOBLIB, "hydra.sweep.dir=sweeps/ppo/killed", "sweep.resume=sweeps/ppo/killed")
    assert f"sweep of 4 jobs in sweeps/ppo/killed, {statuses.count('done')} done" in done.stdout
    assert rows_of(place) == rows_of(left_alone)
    assert results(place) == results(left_alone)
    parent, *children = runs_of(shared, place)
    assert parent["status"] == "FINISHED"
    assert {child["name"] for child in children if child["status"] == "FINISHED"} == {f"ppo #{n}" for n in range(4)}
    assert {child["status"] for child in children} <= {"FINISHED", "KILLED"}
    assert {child["parent"] for child in children} == {parent["id"]}
    assert json.loads(shared.dvc("status", "--json").stdout) == {}


def test_a_point_of_a_sweep_becomes_an_experiment(shared: Clone, left_alone: Path) -> None:
    try:
        shared.run("python", "stages/config.py", "--keep", "winner", "--of", str(left_alone / "1"))
        kept = shared.root / "conf" / "experiment" / "winner.yaml"
        again = shared.stage("ppo", "experiment=winner", "--cfg", "job", "--package", "ppo")
        assert "kl_ctl: 0.1\n" in again.stdout
        assert "clip_range: 0.2\n" in again.stdout
        assert "stop:\n  steps: 2\n" in again.stdout, "what the sweep shared, too"
        assert "resume" not in kept.read_text()
    finally:
        (shared.root / "conf" / "experiment" / "winner.yaml").unlink()


def test_a_sweep_that_cannot_be_compared_does_not_begin(copy: Clone) -> None:
    copy.artifact("evaluate", "responses.jsonl").unlink()
    done = copy.stage("dpo", "-m", SMOKE, "dpo.beta=1,2", code=1)
    assert done.stderr.splitlines() == [
        "dpo: artifacts/evaluate/responses.jsonl is missing, and the sweep is held against what it tells: bring it up to "
        "date with `dvc repro evaluate`"
    ]
    assert not (copy.root / "sweeps").exists()


@pytest.mark.slow
def test_sweeps_of_two_stages_are_read_in_one_picture(shared: Clone, left_alone: Path) -> None:
    shared.stage("dpo", "-m", SMOKE, "dpo.beta=0.3,1", "seed=0,1", "hydra.sweep.dir=sweeps/dpo/two")
    both = shared.root / "sweeps" / "both"
    shared.run("python", "-m", "rlhf.evaluation.swept", "sweeps/ppo/alone", "sweeps/dpo/two", "--output", "sweeps/both")
    page = (both / "sweep.md").read_text()
    assert "PPO, kl_ctl 0.6, clip_range 0.1" in page
    assert "DPO, beta 0.3" in page
    assert "Of 8 runs" in page
    assert {"frontier.png", "frontier.html", "tournament.csv"} <= {path.name for path in both.iterdir()}
