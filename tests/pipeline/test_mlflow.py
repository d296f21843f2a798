"""What the reproduction left in MLflow, asked as a user would ask: plain calls, in the folder of the repository."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import Any

import pytest

from rlhf.runtime.hashes import md5_of
from rlhf.runtime.outputs import numbers
from rlhf.runtime.settings import flatten
from tests.pipeline.clone import STAGES, TRAINED, Clone
from tests.pipeline.conftest import SMOKE, Smoke

ASK = """
import json
import mlflow

client = mlflow.MlflowClient()
runs = mlflow.search_runs(output_format="list")
models = mlflow.search_logged_models(output_format="list")
print(json.dumps({
    "runs": [{
        "name": run.info.run_name, "status": run.info.status,
        "params": run.data.params, "tags": run.data.tags, "metrics": run.data.metrics,
        "history": {key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]
                    for key in run.data.metrics},
        "files": [file.path for file in client.list_artifacts(run.info.run_id)],
        "steps": {output.model_id: output.step for output in run.outputs.model_outputs} if run.outputs else {},
    } for run in runs],
    "models": {model.model_id: {
        "name": model.name, "status": str(model.status), "tags": model.tags,
        "metrics": {metric.key: (metric.step, metric.value) for metric in model.metrics or []},
    } for model in models},
}))
"""


@dataclass(frozen=True)
class Books:
    """All that MLflow knows."""

    runs: list[dict[str, Any]]
    models: dict[str, dict[str, Any]]

    def run(self, name: str) -> dict[str, Any]:
        (found,) = [run for run in self.runs if run["name"] == name]
        return found

    def models_of(self, name: str) -> dict[str, dict[str, Any]]:
        """The models of a stage's run by their names, each with the step that the run has it at."""
        steps = self.run(name)["steps"]
        return {self.models[key]["name"]: self.models[key] | {"step": step} for key, step in steps.items()}


def books(clone: Clone) -> Books:
    answer = clone.run("python", "-c", ASK).stdout.splitlines()[-1]
    return Books(**json.loads(answer))


@pytest.fixture(scope="module")
def smoke_books(smoke: Smoke) -> Books:
    return books(smoke.clone)


def curve(clone: Clone, stage: str) -> list[dict[str, str]]:
    with clone.artifact(stage, "curve.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_stage_is_one_finished_run(smoke_books: Books) -> None:
    assert sorted((run["name"], run["status"]) for run in smoke_books.runs) == sorted((s, "FINISHED") for s in STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_has_every_setting_and_every_figure(smoke: Smoke, smoke_books: Books, stage: str) -> None:
    run = smoke_books.run(stage)
    said = {key: "null" if value is None else str(value) for key, value in flatten(smoke.clone.params()).items()}
    assert run["params"] == said
    figures = json.loads(smoke.clone.artifact(stage, "metrics.json").read_text(encoding="utf-8"))
    assert run["metrics"].items() >= numbers(figures, f"{stage}/").items()
    assert run["metrics"]["system/wall_seconds"] > 0
    assert {"metrics.json", "curve.csv"} <= set(run["files"])


@pytest.mark.parametrize("stage", STAGES)
def test_the_name_of_a_figure_says_whose_it_is(smoke_books: Books, stage: str) -> None:
    places = (f"{stage}/", "validation/", "system/")
    assert [key for key in smoke_books.run(stage)["metrics"] if not key.startswith(places)] == []


@pytest.mark.parametrize("stage", TRAINED)
def test_the_curve_of_a_training_is_there_step_by_step(smoke: Smoke, smoke_books: Books, stage: str) -> None:
    history = smoke_books.run(stage)["history"]
    rows = curve(smoke.clone, stage)
    for column in (name for name in rows[0] if name != "step"):
        expected = {(int(row["step"]), float(row[column])) for row in rows if row[column]}
        assert expected <= {(step, value) for step, value in history[f"{stage}/{column}"]}, column


@pytest.mark.parametrize("stage", STAGES)
def test_the_tags_of_a_run_say_where_it_came_from(smoke: Smoke, smoke_books: Books, stage: str) -> None:
    tags = smoke_books.run(stage)["tags"]
    assert (tags["stage"], tags["device"], tags["threads"]) == (stage, "cpu", "1")
    assert (tags["git_commit"], tags["git_dirty"]) == (smoke.commit, "true")
    assert tags["dvc_experiment"]
    inputs = {f"md5/{dep['path']}": dep["md5"] for dep in smoke.clone.lock()[stage]["deps"]}
    assert {key: tags[key] for key in tags if key.startswith("md5/")} == inputs


@pytest.mark.parametrize("stage", TRAINED)
def test_a_model_is_linked_to_its_run_its_step_and_its_figures(smoke: Smoke, smoke_books: Books, stage: str) -> None:
    model = smoke_books.models_of(stage)[stage]
    last = curve(smoke.clone, stage)[-1]
    assert (model["status"], model["step"]) == ("READY", int(last["step"]))
    assert model["tags"]["path"] == f"artifacts/{stage}/model"
    assert model["tags"]["md5"] == md5_of(smoke.clone.artifact(stage, "model"))
    validation = [key for key in last if key.startswith("validation_") and last[key]]
    figures = {key.replace("validation_", "validation/", 1): float(last[key]) for key in validation}
    assert figures
    assert model["metrics"] == {key: [model["step"], value] for key, value in figures.items()}


def test_kept_snapshots_are_linked_to_their_steps_and_figures(smoke: Smoke, smoke_books: Books) -> None:
    models = smoke_books.models_of("ppo")
    kept = sorted(path.name for path in smoke.clone.artifact("ppo", "snapshots").iterdir())
    assert set(models) == {"ppo", *(f"ppo-snapshots-{name}" for name in kept)}
    for row in curve(smoke.clone, "ppo"):
        model = models.get(f"ppo-snapshots-step_{int(row['step']):04d}")
        if model is not None:
            assert model["step"] == int(row["step"])
            assert model["metrics"]["validation/score"] == [model["step"], float(row["validation_score"])]


def test_a_direct_run_of_a_clean_clone_is_in_the_same_books_and_says_so(copy: Clone) -> None:
    copy.stage("label", SMOKE)
    newest = books(copy).runs[0]
    assert (newest["name"], newest["status"]) == ("label", "FINISHED")
    assert (newest["tags"]["git_commit"], newest["tags"]["git_dirty"]) == (copy.git("rev-parse", "HEAD"), "false")
    assert "dvc_experiment" not in newest["tags"]
