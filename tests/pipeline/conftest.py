"""One reproduction of the whole pipeline for all tests, and copies of it to change."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.clone import ROOT, SECONDS, Clone, Done, clone

SMOKE = "experiment=smoke"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first waits for the reproduction, and may."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(2 * SECONDS))


@dataclass(frozen=True)
class Smoke:
    """The clone in which `experiment=smoke` was run; only to be read."""

    clone: Clone
    done: Done
    commit: str  # at which it ran


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """An empty clone in which everything ran once, as a user would run it, committed afterwards.

    Once for all processes that these tests are shared out to: the first one makes it, and the others wait.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smoke"
    folder.mkdir(exist_ok=True)
    record = folder / "record.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            record.write_text(json.dumps(reproduce(folder)), encoding="utf-8")
    told = json.loads(record.read_text(encoding="utf-8"))
    return Smoke(Clone(folder / "clone", folder / "home"), Done(**told["done"]), told["commit"])


def reproduce(folder: Path) -> dict[str, Any]:
    """What DVC said, and the commit at which it ran."""
    made = clone(ROOT, folder / "clone", folder / "home")
    made.run("python", "stages/config.py", "--write")  # the user's own checkout may have an experiment applied
    if made.git("status", "--porcelain"):
        made.commit("The settings of conf/")
    commit = made.git("rev-parse", "HEAD")
    done = made.dvc("exp", "run", "-S", SMOKE)
    made.commit("experiment=smoke")
    return {"done": asdict(done), "commit": commit}


@pytest.fixture
def copy(smoke: Smoke, tmp_path: Path) -> Clone:
    """A copy to change, for one test."""
    return smoke.clone.copy(tmp_path / "copy")


@pytest.fixture(scope="module")
def shared(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A copy that the tests of one module share; each leaves it as it found it."""
    return smoke.clone.copy(tmp_path_factory.mktemp("shared") / "copy")
