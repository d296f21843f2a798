"""One reproduction of the whole pipeline for all tests, and copies of it to change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pipeline.clone import ROOT, SECONDS, Clone, Done, clone

SMOKE = "experiment=smoke"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first waits for the reproduction, and may. Several processes share the other tests, not these:
    each would reproduce for itself."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(2 * SECONDS))
            item.add_marker(pytest.mark.xdist_group("pipeline"))


@dataclass(frozen=True)
class Smoke:
    """The clone in which `experiment=smoke` was run; only to be read."""

    clone: Clone
    done: Done
    commit: str  # at which it ran


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """An empty clone in which everything ran once, as a user would run it, committed afterwards."""
    folder = tmp_path_factory.mktemp("smoke")
    made = clone(ROOT, folder / "clone", folder / "home")
    made.run("python", "stages/config.py", "--write")  # the user's own checkout may have an experiment applied
    if made.git("status", "--porcelain"):
        made.commit("The settings of conf/")
    commit = made.git("rev-parse", "HEAD")
    done = made.dvc("exp", "run", "-S", SMOKE)
    made.commit("experiment=smoke")
    return Smoke(made, done, commit)


@pytest.fixture
def copy(smoke: Smoke, tmp_path: Path) -> Clone:
    """A copy to change, for one test."""
    return smoke.clone.copy(tmp_path / "copy")


@pytest.fixture(scope="module")
def shared(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A copy that the tests of one module share; each leaves it as it found it."""
    return smoke.clone.copy(tmp_path_factory.mktemp("shared") / "copy")
