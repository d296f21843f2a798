"""What reaches MLflow, in a real store; and what a store that is dead, slow or broken costs: one warning."""

from __future__ import annotations

import contextlib
import http.server
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf.runtime import tracking
from rlhf.runtime.hashes import md5_of
from tests.runtime.conftest import copy_store

SETTINGS = {"tracking.experiment": "Default", "tracking.copy_models": False, "data.path": "data/raw.txt"}


@pytest.fixture
def store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    copy_store(empty_store, tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def runs_in(store: str) -> list[Any]:
    import mlflow

    return list(mlflow.MlflowClient(store).search_runs(["0"], order_by=["attribute.start_time"]))


def history(store: str, run_id: str, key: str) -> list[tuple[int, float]]:
    import mlflow

    return [(metric.step, metric.value) for metric in mlflow.MlflowClient(store).get_metric_history(run_id, key)]


def test_every_parameter_and_every_number_arrives(store: str, tmp_path: Path) -> None:
    many = {f"group.setting_{number}": number / 7 for number in range(250)}
    tracker = tracking.start(tmp_path, "ppo", SETTINGS | many | {"long": "x" * 7000, "none": None})
    for step in range(1, 1501):
        tracker.log_metrics({"ppo/loss": 1 / step, "ppo/reward": float(step)}, step)
    tracker.close("FINISHED")

    (run,) = runs_in(store)
    assert (run.info.status, run.info.run_name, run.info.experiment_id) == ("FINISHED", "ppo", "0")
    expected = {"long": "x" * 6000, "none": "null", **{key: str(value) for key, value in (SETTINGS | many).items()}}
    assert run.data.params == expected
    assert history(store, run.info.run_id, "ppo/loss") == [(step, 1 / step) for step in range(1, 1501)]
    assert history(store, run.info.run_id, "ppo/reward") == [(step, float(step)) for step in range(1, 1501)]


def test_models_are_tied_to_their_run_step_and_metrics_and_files_are_kept(store: str, tmp_path: Path) -> None:
    import mlflow

    model = tmp_path / "artifacts" / "ppo" / "snapshots" / "step_0010"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (tmp_path / "metrics.json").write_text("{}")
    tracker = tracking.start(tmp_path, "ppo", SETTINGS)
    tracker.log_file(tmp_path / "metrics.json")
    tracker.log_model("ppo-snapshots-step_0010", model.relative_to(tmp_path), 10, {"validation_score": 1.5})
    tracker.close("FINISHED")

    client = mlflow.MlflowClient(store)
    (run,) = runs_in(store)
    (logged,) = client.search_logged_models(["0"])
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["metrics.json"]
    assert (logged.name, logged.source_run_id, logged.status) == ("ppo-snapshots-step_0010", run.info.run_id, "READY")
    assert [(metric.key, metric.value, metric.step) for metric in logged.metrics or []] == [("validation_score", 1.5, 10)]
    assert [(output.model_id, output.step) for output in run.outputs.model_outputs] == [(logged.model_id, 10)]
    assert logged.tags["path"] == "artifacts/ppo/snapshots/step_0010"
    assert logged.tags["md5"] == md5_of(model)
    assert not list((tmp_path / "mlruns").rglob("config.json")), "the bytes stay where they are"


def test_models_are_copied_where_that_is_asked_for(store: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    tracker = tracking.start(tmp_path, "sft", SETTINGS | {"tracking.copy_models": True})
    tracker.log_model("sft", Path("model"), 1, {})
    tracker.close("FINISHED")
    assert len(list((tmp_path / "mlruns").rglob("config.json"))) == 1


def test_tags_name_the_experiment_and_the_md5_of_each_input_wherever_it_lies(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("DVC_EXP_NAME", "warm-cat")
    monkeypatch.setenv("API_TOKEN", "hunter2-hunter2")
    root, outside = tmp_path / "repository", tmp_path / "raw.txt"
    (root / "artifacts" / "base" / "model").mkdir(parents=True)
    for path in (root / "words.txt", outside):
        path.write_text("abc")
    deps = "['${data.path}', ../raw.txt, words.txt, artifacts/prepare, artifacts/absent]"
    (root / "dvc.yaml").write_text(f"stages:\n  sft:\n    cmd: python stages/sft.py\n    deps: {deps}\n")
    (root / "dvc.lock").write_text("stages:\n  prepare:\n    outs:\n    - {path: artifacts/prepare, md5: 1f.dir}\n")
    tracker = tracking.start(root, "sft", SETTINGS | {"data.path": str(outside)})
    tracker.log_tags({"device": "cpu"})
    tracker.close("FINISHED")

    (run,) = runs_in(store)
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    abc = "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321, appendix A.5
    inputs = {f"md5{outside}": abc, "md5/raw.txt": abc, "md5/words.txt": abc, "md5/artifacts/prepare": "1f.dir"}
    assert tags == inputs | {"stage": "sft", "device": "cpu", "dvc_experiment": "warm-cat"}
    assert b"hunter2" not in (tmp_path / "mlflow.db").read_bytes()


def test_a_run_whose_stage_was_killed_does_not_stay_open(store: str, tmp_path: Path) -> None:
    tracker = tracking.start(tmp_path, "ppo", SETTINGS)
    tracker.log_metrics({"ppo/loss": 0.5}, 1)
    assert tracker.writer is not None
    tracker.writer.communicate(bytes(tracker.backlog))  # the pipe ends without a word, as it does on SIGKILL
    (run,) = runs_in(store)
    assert run.info.status == "KILLED"
    assert history(store, run.info.run_id, "ppo/loss") == [(1, 0.5)]


def test_a_writer_that_stands_still_holds_nobody_up_and_loses_nothing(store: str, tmp_path: Path) -> None:
    tracker = tracking.start(tmp_path, "ppo", SETTINGS)
    assert tracker.writer is not None
    tracker.writer.send_signal(signal.SIGSTOP)
    for step in range(1, 3001):
        tracker.log_metrics({"ppo/loss": 0.5}, step)
    assert len(tracker.backlog) > 0, "the pipe was never full"
    tracker.writer.send_signal(signal.SIGCONT)
    tracker.close("FINISHED")
    (run,) = runs_in(store)
    assert len(history(store, run.info.run_id, "ppo/loss")) == 3000


def test_a_store_made_by_two_at_once_is_one_store(empty_store: Path) -> None:
    with contextlib.closing(sqlite3.connect(empty_store)) as made:
        assert made.execute("select count(*) from alembic_version").fetchone() == (1,)
        assert made.execute("select name from experiments").fetchall() == [("Default",)]


def test_stages_that_start_at_once_with_a_new_experiment_all_arrive(store: str, tmp_path: Path) -> None:
    settings = SETTINGS | {"tracking.experiment": "theirs"}
    trackers = [tracking.start(tmp_path, name, settings) for name in ("ppo", "dpo", "sft")]
    for tracker in trackers:
        tracker.close("FINISHED")
    import mlflow

    client = mlflow.MlflowClient(store)
    experiment = client.get_experiment_by_name("theirs")
    found = client.search_runs([experiment.experiment_id])
    assert sorted((run.info.run_name, run.info.status) for run in found) == [
        (name, "FINISHED") for name in ("dpo", "ppo", "sft")
    ]


@pytest.mark.parametrize("inside", ["", "/.dvc/tmp/exps/tmpq1w2e3"])
def test_the_default_store_is_at_the_root_of_the_repository_for_queued_experiments_too(inside: str) -> None:
    assert tracking.default_uri(Path(f"/home/someone/project{inside}")) == "sqlite:////home/someone/project/mlflow.db"


# --- servers that fail -------------------------------------------------------------------------------------------------


def warnings_of_a_run(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> list[str]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracker = tracking.start(tmp_path, "ppo", SETTINGS)
    for step in range(1, 5001):  # more than a pipe holds
        tracker.log_metrics({"ppo/loss": 0.5, "ppo/reward": 0.25}, step)
    tracker.close("FINISHED")
    tracker.log_metrics({"ppo/late": 1.0}, 1)
    tracker.close("FINISHED")
    return capfd.readouterr().err.splitlines()


def test_a_dead_server_costs_one_warning_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused, and nobody else gets the port
        uri = f"http://someone:hunter2@127.0.0.1:{taken.getsockname()[1]}"
        (warning,) = warnings_of_a_run(uri, tmp_path, monkeypatch, capfd)
    assert warning.startswith(f"warning: no MLflow at http://127.0.0.1:{taken_port(uri)} (")
    assert "hunter2" not in warning


def taken_port(uri: str) -> str:
    return uri.rpartition(":")[2]


@pytest.fixture
def broken_server() -> Iterator[tuple[str, list[str]]]:
    """A server that answers every request with 500, and the list of what it was asked."""
    asked: list[str] = []

    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_error(500)

        do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_a_server_that_answers_500_is_asked_no_more_than_once(
    broken_server: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    uri, asked = broken_server
    (warning,) = warnings_of_a_run(uri, tmp_path, monkeypatch, capfd)
    assert warning.startswith(f"warning: no MLflow at {uri} (")
    assert asked[0] == "GET /"
    assert len(asked) == 2, "one knock at the door, and one request that failed"


def test_a_server_that_never_answers_is_given_up_after_one_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        (warning,) = warnings_of_a_run(uri, tmp_path, monkeypatch, capfd)
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert "timed out" in warning
