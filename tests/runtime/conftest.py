"""A repository in small: the real conf/, a stage of a few lines, and an MLflow store of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

NO_MLFLOW = "http://127.0.0.1:9"  # the port of a service that throws all away, and that nobody runs
NO_MLFLOW_WARNING = f"warning: no MLflow at {NO_MLFLOW} "

STAGE = """
import _checkout
from rlhf.runtime.stage import stage

if __name__ == "__main__":
    stage(__file__)

from rlhf.runtime.run import Run


def main(run: Run) -> None:
    for row in run.follow(({{"step": step, "loss": 1 / step}} for step in range(1, 4)), 3):
        pass
    {body}
    run.finish({{"kl_ctl": run.config.ppo.kl_ctl, "nested": {{"loss": row["loss"]}}}})
"""


class Repository:
    """A folder with conf/ and stages/, and the means to run one of its stages in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = f"sqlite:///{root / 'mlflow.db'}"

    def write_stage(self, body: str = "pass", name: str = "ppo") -> Path:
        path = self.root / "stages" / f"{name}.py"
        path.write_text(STAGE.format(body=body), encoding="utf-8")
        return path

    def environment(self, **more: str) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "RLHF_", "MLFLOW_"))}
        return inherited | more

    def run(self, *arguments: str, python: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
        """A run that MLflow, which takes seconds to import, hears of."""
        command = [sys.executable, *python, "stages/ppo.py", *arguments]
        return subprocess.run(
            command, cwd=self.root, env=self.environment(**environment), capture_output=True, text=True, timeout=120
        )

    def run_untracked(self, *arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """The same with no MLflow to be found, and what it said on stderr but for the warnings of that."""
        done = self.run(*arguments, MLFLOW_TRACKING_URI=NO_MLFLOW, **environment)
        return done, [line for line in done.stderr.splitlines() if not line.startswith(NO_MLFLOW_WARNING)]

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
        done = subprocess.run(["git", *who, *arguments], cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout.strip()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store as MLflow makes it, made once, by two processes that start at once: one makes it, one waits."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    code = "import sys; from rlhf.runtime.tracking.writer import connect; connect(sys.argv[1])"
    makers = [subprocess.Popen([sys.executable, "-c", code, f"sqlite:///{path}"]) for _ in range(2)]
    assert [maker.wait() for maker in makers] == [0, 0]
    return path


def copy_store(empty_store: Path, folder: Path) -> None:
    """A store of one's own, which keeps its artifacts beside it."""
    shutil.copy(empty_store, folder / "mlflow.db")
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store, store:
        store.execute("update experiments set artifact_location = ?", (str(folder / "mlruns" / "0"),))


@pytest.fixture
def repository(tmp_path: Path, empty_store: Path) -> Repository:
    root = tmp_path / "a repository"
    (root / "stages").mkdir(parents=True)
    shutil.copy(ROOT / "stages" / "_checkout.py", root / "stages")
    shutil.copytree(ROOT / "conf", root / "conf")
    copy_store(empty_store, root)
    return Repository(root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What a sweep is planned from: conf/, what the stage declares, and an input of it."""
    from tests.runtime import sweep_runs

    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf" / "experiment" / "grid.yaml").write_text(sweep_runs.EXPERIMENT)
    (tmp_path / "dvc.yaml").write_text(sweep_runs.DVC)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "sft").write_text("a policy")
    return tmp_path
