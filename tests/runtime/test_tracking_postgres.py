"""What a team's MLflow server keeps: PostgreSQL behind it, a folder for artifacts, and a stage's own writer before it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rlhf.runtime import tracking

SETTINGS = {"tracking.experiment": "team", "tracking.copy_models": True, "ppo.kl_ctl": 0.2}
PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))  # Debian leaves them off the path
INITDB = shutil.which("initdb") or (str(PLACES[-1]) if PLACES else None)
SERVANT = "nobody"  # PostgreSQL refuses to run as root

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(INITDB is None, reason="PostgreSQL is not installed: no initdb"),
    pytest.mark.skipif(find_spec("psycopg2") is None, reason="psycopg2 is not installed: pip install -e '.[team]'"),
]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_until(ready: Callable[[], bool], running: subprocess.Popen[Any], log: Path) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert running.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def database() -> Iterator[str]:
    """A PostgreSQL server of its own, on loopback; the URI of its database, with a password."""
    import psycopg2

    assert INITDB is not None
    servant: dict[str, Any] = {"user": SERVANT, "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory() as name:  # not pytest's, into which nobody else may look
        folder, port = Path(name), free_port()
        (folder / "password").write_text("hunter2")
        if servant:
            for path in (folder, folder / "password"):
                shutil.chown(path, SERVANT)
        data, log = folder / "data", folder / "log"
        make = [INITDB, "-D", str(data), "-U", "mlflow", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}"]
        subprocess.run([*make, "--no-sync"], cwd=folder, check=True, capture_output=True, **servant)
        serve = [str(Path(INITDB).with_name("postgres")), "-D", str(data), "-p", str(port), "-k", str(folder)]
        with log.open("w") as out:
            running = subprocess.Popen([*serve, "-h", "127.0.0.1"], cwd=folder, stdout=out, stderr=out, **servant)

        def ready() -> bool:
            try:
                psycopg2.connect(host="127.0.0.1", port=port, user="mlflow", password="hunter2", dbname="postgres").close()
            except psycopg2.OperationalError:
                return False
            return True

        try:
            wait_until(ready, running, log)
            yield f"postgresql+psycopg2://mlflow:hunter2@127.0.0.1:{port}/postgres"
        finally:
            running.send_signal(signal.SIGINT)  # its fast shutdown: whoever is connected is let go
            running.wait(60)


@pytest.fixture
def server(database: str, tmp_path: Path) -> Iterator[str]:
    """MLflow's server as docs/team.md starts it: the database, and so its password, comes by the environment."""
    port, log = free_port(), tmp_path / "server.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", str(tmp_path / "store")]
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": database}
    with log.open("w") as out:
        running = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_until(lambda: answers(port), running, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait(60)


def rows_in(database: str, query: str) -> list[tuple[Any, ...]]:
    import psycopg2

    connection = psycopg2.connect(database.replace("+psycopg2", ""))
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())
    finally:
        connection.close()


def test_a_run_is_kept_by_postgresql_and_its_files_and_model_by_the_server(
    server: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    root = tmp_path / "repository"
    (root / "model").mkdir(parents=True)
    (root / "model" / "config.json").write_text('{"layers": 2}')
    (root / "metrics.json").write_text('{"kl": 2.0}')
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    many = {f"group.setting_{number}": number / 7 for number in range(150)}
    tracker = tracking.start(root, "ppo", SETTINGS | many)
    for step in range(1, 1201):
        tracker.log_metrics({"ppo/loss": 1 / step}, step)
    tracker.log_file(root / "metrics.json")
    tracker.log_model("ppo", Path("model"), 1200, {"validation/score": 1.5})
    run_id = tracker.run_id()
    tracker.close("FINISHED")
    assert capfd.readouterr().err == ""
    assert run_id is not None

    client = mlflow.MlflowClient(server)
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "ppo")
    assert run.data.params == {key: str(value) for key, value in (SETTINGS | many).items()}
    history = client.get_metric_history(run_id, "ppo/loss")
    assert [(metric.step, metric.value) for metric in history] == [(step, 1 / step) for step in range(1, 1201)]
    fetched = client.download_artifacts(run_id, "metrics.json", str(tmp_path))
    assert Path(fetched).read_text() == '{"kl": 2.0}'
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert (model.name, model.source_run_id, model.status) == ("ppo", run_id, "READY")
    assert [(metric.key, metric.value, metric.step) for metric in model.metrics or []] == [("validation/score", 1.5, 1200)]

    assert rows_in(database, "select run_uuid, status from runs") == [(run_id, "FINISHED")]
    assert rows_in(database, "select count(*) from metrics where key = 'ppo/loss'") == [(1200,)]
    kept = sorted(path.name for path in (tmp_path / "store").rglob("*.json"))
    assert kept == ["config.json", "metrics.json"]
    assert not (root / "mlflow.db").exists(), "nothing is written beside the server"
