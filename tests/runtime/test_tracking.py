"""What reaches MLflow, in a real store; and what a store that is dead, slow or broken costs: one warning."""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from rlhf import config
from rlhf.runtime import settings, tracking
from rlhf.runtime.hashes import md5_of
from rlhf.runtime.run import Run
from rlhf.runtime.tracking import process
from tests.runtime.conftest import ROOT, copy_store

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
    tracker.log_model("ppo-snapshots-step_0010", model.relative_to(tmp_path), 10, {"validation/score": 1.5})
    tracker.close("FINISHED")

    client = mlflow.MlflowClient(store)
    (run,) = runs_in(store)
    (logged,) = client.search_logged_models(["0"])
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["metrics.json"]
    assert (logged.name, logged.source_run_id, logged.status) == ("ppo-snapshots-step_0010", run.info.run_id, "READY")
    assert [(metric.key, metric.value, metric.step) for metric in logged.metrics or []] == [("validation/score", 1.5, 10)]
    assert [(output.model_id, output.step) for output in run.outputs.model_outputs] == [(logged.model_id, 10)]
    assert logged.tags["path"] == "artifacts/ppo/snapshots/step_0010"
    assert logged.tags["md5"] == md5_of(model)
    assert not list((tmp_path / "mlruns").rglob("config.json")), "the bytes stay where they are"


def test_every_figure_has_a_name_of_its_own_and_that_of_a_model_is_the_same_for_all_stages(
    store: str, tmp_path: Path
) -> None:
    import mlflow

    (tmp_path / "model").mkdir()
    values = config.Config.model_validate(settings.values_of(settings.compose(ROOT)))
    tracker = tracking.start(tmp_path, "ppo", SETTINGS)
    run = Run("ppo", values, tmp_path, torch.device("cpu"), tmp_path, tracker)
    run.follow_to_end([{"step": step, "loss": 1 / step, "validation_score": step / 4} for step in (5, 10)], 10)
    run.finish({"kl": 2.0})
    run.log_model(tmp_path / "model")
    tracker.close("FINISHED")

    (made,) = runs_in(store)
    assert made.data.metrics == {"ppo/loss": 0.1, "ppo/validation_score": 2.5, "ppo/kl": 2.0, "validation/score": 2.5}
    assert history(store, made.info.run_id, "validation/score") == [(10, 2.5)]
    (model,) = mlflow.MlflowClient(store).search_logged_models(["0"])
    assert [(metric.key, metric.value, metric.step) for metric in model.metrics or []] == [("validation/score", 2.5, 10)]


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
    tracker.writer.leave()  # the pipe ends without a word, as it does on SIGKILL
    tracker.writer.process.wait()
    (run,) = runs_in(store)
    assert run.info.status == "KILLED"
    assert history(store, run.info.run_id, "ppo/loss") == [(1, 0.5)]


def test_a_writer_that_stands_still_holds_nobody_up_and_loses_nothing(store: str, tmp_path: Path) -> None:
    tracker = tracking.start(tmp_path, "ppo", SETTINGS)
    assert tracker.writer is not None
    tracker.writer.process.send_signal(signal.SIGSTOP)
    for step in range(1, 3001):
        tracker.log_metrics({"ppo/loss": 0.5}, step)
    assert len(tracker.writer.backlog) > 0, "the pipe was never full"
    tracker.writer.process.send_signal(signal.SIGCONT)
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


# --- one run after another in one process -------------------------------------------------------------------------------


def pid_of(tracker: tracking.Tracker) -> int:
    assert tracker.writer is not None
    return tracker.writer.process.pid


def test_a_process_writes_its_runs_by_one_writer_and_each_is_whole(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pids = []
    for number, status in enumerate(("FINISHED", "FAILED", "FINISHED")):
        tracker = tracking.start(tmp_path, f"ppo {number}", SETTINGS | {"number": number})
        pids.append(pid_of(tracker))
        tracker.log_file(tmp_path / f"absent_{number}.json")
        for step in range(1, 1201):
            tracker.log_metrics({"ppo/loss": number + step}, step)
        tracker.close(status)

    assert len(set(pids)) == 1
    runs = runs_in(store)
    expected = [("ppo 0", "FINISHED", "0"), ("ppo 1", "FAILED", "1"), ("ppo 2", "FINISHED", "2")]
    assert [(run.info.run_name, run.info.status, run.data.params["number"]) for run in runs] == expected
    for number, run in enumerate(runs):
        assert history(store, run.info.run_id, "ppo/loss") == [(step, number + step) for step in range(1, 1201)]
    warnings = capfd.readouterr().err.splitlines()
    assert [f"absent_{number}.json" in warning for number, warning in enumerate(warnings)] == [True] * 3


def test_runs_that_are_open_at_once_have_a_writer_each(store: str, tmp_path: Path) -> None:
    parent = tracking.start(tmp_path, "sweep", SETTINGS)
    children = []
    for number in range(2):
        child = tracking.start(tmp_path, f"job {number}", SETTINGS, parent=parent.run_id())
        children.append(pid_of(child))
        child.close("FINISHED")
    assert children[0] == children[1] != pid_of(parent)
    parent.close("FINISHED")
    assert sorted(run.info.run_name for run in runs_in(store)) == ["job 0", "job 1", "sweep"]


def test_a_run_that_goes_on_keeps_the_parameters_that_it_has(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = tracking.start(tmp_path, "ppo", SETTINGS)
    run_id = first.run_id()
    first.close("FAILED")
    again = tracking.start(tmp_path, "ppo", SETTINGS | {"tracking.experiment": "other", "seed": 1}, run_id=run_id)
    again.close("FINISHED")
    (run,) = runs_in(store)
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert (run.data.params["tracking.experiment"], run.data.params["seed"]) == ("Default", "1")
    assert capfd.readouterr().err == ""


def test_a_writer_that_was_killed_between_two_runs_costs_nothing(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = tracking.start(tmp_path, "ppo", SETTINGS)
    killed = first.writer.process if first.writer else None
    first.close("FINISHED")
    assert killed is not None
    killed.kill()
    killed.wait()
    second = tracking.start(tmp_path, "dpo", SETTINGS)
    second.close("FINISHED")
    assert [(run.info.run_name, run.info.status) for run in runs_in(store)] == [("ppo", "FINISHED"), ("dpo", "FINISHED")]
    assert capfd.readouterr().err == ""


def test_a_writer_without_a_run_ends_with_its_stage_in_silence(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = tracking.start(tmp_path, "ppo", SETTINGS)
    writer = tracker.writer
    tracker.close("FINISHED")
    assert writer is not None
    writer.leave()
    assert writer.process.wait() == 0
    assert capfd.readouterr().err == ""


def test_mlflow_is_imported_ahead_for_the_run_that_follows(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking.warm_up(tmp_path)
    (waiting,) = (kept for kept in process._idle if kept.place == tmp_path)
    libraries = Path(f"/proc/{waiting.process.pid}/maps")
    deadline = time.monotonic() + tracking.START_PATIENCE
    while "/pandas/" not in libraries.read_text():  # which MLflow imports, and nothing else here
        assert time.monotonic() < deadline
        time.sleep(0.1)
    tracker = tracking.start(tmp_path, "ppo", SETTINGS)
    assert pid_of(tracker) == waiting.process.pid
    tracker.close("FINISHED")
    assert [run.info.status for run in runs_in(store)] == ["FINISHED"]

    process._idle.clear()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    tracking.warm_up(tmp_path)
    assert not process._idle, "a server is asked whether it lives before MLflow is imported"


# --- faults after the run was opened ------------------------------------------------------------------------------------


def log_a_file_that_is_not_there(tracker: tracking.Tracker, root: Path) -> None:
    tracker.log_file(root / "absent.json")


def log_a_model_that_is_not_there(tracker: tracking.Tracker, root: Path) -> None:
    tracker.log_model("ppo", Path("absent.json"), 1, {"validation/score": 1.0})


def log_where_artifacts_have_no_folder(tracker: tracking.Tracker, root: Path) -> None:
    (root / "mlruns").write_text("")
    (root / "metrics.json").write_text("{}")
    tracker.log_file(root / "metrics.json")


@pytest.mark.parametrize(
    ("fault", "reason", "status"),
    [
        (log_a_file_that_is_not_there, "absent.json", "FINISHED"),
        (log_a_model_that_is_not_there, "absent.json", "FINISHED"),
        (log_where_artifacts_have_no_folder, "mlruns", "FINISHED"),
        (log_where_artifacts_have_no_folder, "mlruns", "FAILED"),
    ],
)
def test_what_cannot_be_logged_is_lost_alone_and_costs_one_warning(
    fault: Callable[[tracking.Tracker, Path], None],
    reason: str,
    status: str,
    store: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    tracker = tracking.start(tmp_path, "ppo", SETTINGS)
    fault(tracker, tmp_path)
    fault(tracker, tmp_path)
    tracker.log_metrics({"ppo/loss": 0.5}, 1)
    tracker.close(status)

    (run,) = runs_in(store)
    assert (run.info.status, run.data.metrics) == (status, {"ppo/loss": 0.5})
    (warning,) = capfd.readouterr().err.splitlines()
    assert warning.startswith(f"warning: not all is in MLflow at {store} (")
    assert reason in warning


def test_inputs_that_cannot_be_read_cost_their_tags_and_nothing_else(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dvc.lock").write_text("stages: [")
    tracker = tracking.start(tmp_path, "ppo", SETTINGS)
    tracker.close("FINISHED")
    (run,) = runs_in(store)
    assert (run.info.status, run.data.params["data.path"]) == ("FINISHED", "data/raw.txt")
    (warning,) = capfd.readouterr().err.splitlines()
    assert "while parsing a flow node" in warning
    assert f'"{tmp_path}/dvc.lock", line ' in warning


def test_a_metric_that_is_refused_takes_those_sent_with_it_along_and_no_more(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = tracking.start(tmp_path, "ppo", SETTINGS)
    tracker.log_metrics({"x" * 251: 1.0}, 1)  # MLflow takes 250 letters
    for step in range(1, 1001):  # one more than a batch takes beside it
        tracker.log_metrics({"ppo/loss": 0.5}, step)
    tracker.close("FINISHED")

    (run,) = runs_in(store)
    assert run.info.status == "FINISHED"
    assert history(store, run.info.run_id, "ppo/loss")[-1:] == [(1000, 0.5)]
    (warning,) = capfd.readouterr().err.splitlines()
    assert "exceeds the maximum length of 250" in warning


@pytest.fixture
def busy(store: str, tmp_path: Path) -> Iterator[tuple[tracking.Tracker, BinaryIO]]:
    """A run whose writer is reading a model, and the writing end of that model: it reads until this is closed."""
    os.mkfifo(tmp_path / "model")
    tracker = tracking.start(tmp_path, "ppo", SETTINGS)
    tracker.log_model("ppo", Path("model"), 1, {})
    with (tmp_path / "model").open("wb") as model:  # waits for the reader
        yield tracker, model


def test_work_that_outlasts_the_patience_does_not_keep_the_run_open(
    busy: tuple[tracking.Tracker, BinaryIO], store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker, _ = busy
    tracker.patience = tracking.REMOTE_PATIENCE
    tracker.close("FINISHED")
    assert [run.info.status for run in runs_in(store)] == ["FINISHED"]
    (warning,) = capfd.readouterr().err.splitlines()
    assert warning.startswith(f"warning: not all is in MLflow at {store} (not done after 5 s)")


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_a_writer_that_is_killed_costs_one_warning_and_its_run_ends_like_its_stage(
    status: str, busy: tuple[tracking.Tracker, BinaryIO], store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker, _ = busy
    assert tracker.writer is not None
    tracker.writer.process.send_signal(signal.SIGSTOP)
    for step in range(1, 3001):
        tracker.log_metrics({"ppo/loss": 0.5}, step)
    tracker.writer.process.kill()  # with a pipe that is full, and a message cut in two
    tracker.writer.process.wait()
    tracker.close(status)
    assert [run.info.status for run in runs_in(store)] == [status]
    (warning,) = capfd.readouterr().err.splitlines()
    assert warning.startswith(f"warning: not all is in MLflow at {store} (its writer ended with code -9)")


def test_a_writer_that_is_told_to_stop_with_its_stage_writes_to_the_end(
    busy: tuple[tracking.Tracker, BinaryIO], store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker, model = busy
    assert tracker.writer is not None
    tracker.writer.process.terminate()
    tracker.log_metrics({"ppo/loss": 0.5}, 1)
    model.close()
    tracker.close("KILLED")
    (run,) = runs_in(store)
    assert (run.info.status, run.data.metrics) == ("KILLED", {"ppo/loss": 0.5})
    assert capfd.readouterr().err == ""


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
    assert "refused" in warning
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


@pytest.fixture
def server(store: str, tmp_path: Path) -> Iterator[str]:
    """A real server, on this store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store]
    with (tmp_path / "server.log").open("w") as log:
        running = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not answers(port):
            assert running.poll() is None, (tmp_path / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://someone:hunter2@127.0.0.1:{port}"
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_a_server_that_works_hears_of_every_run_and_nobody_else_does(
    server: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    writers = []
    for name in ("ppo", "dpo"):
        tracker = tracking.start(tmp_path, name, SETTINGS)
        writers.append(tracker.writer)
        tracker.log_metrics({f"{name}/loss": 0.5}, 1)
        tracker.close("FINISHED")
    writer, again = writers
    assert writer is again
    assert writer is not None
    writer.leave()
    assert writer.process.wait() == 0
    told = [(run.info.run_name, run.info.status, run.data.metrics) for run in runs_in(store)]
    assert told == [(name, "FINISHED", {f"{name}/loss": 0.5}) for name in ("ppo", "dpo")]
    assert capfd.readouterr() == ("", "")
