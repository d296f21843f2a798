"""The worlds that come with the repository, one a language: what holds of one holds of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.data.world import World, load_world

TABLES = {language: Path(__file__).parents[3] / "data" / "world" / f"{language}.yaml" for language in ("english", "chinese")}


@pytest.fixture(scope="session", params=TABLES)
def table(request: pytest.FixtureRequest) -> Path:
    return TABLES[request.param]


@pytest.fixture(scope="session")
def world(table: Path) -> World:
    return load_world(table)


@pytest.fixture(scope="session")
def prompts(world: World) -> list[str]:
    return world.prompts(8000, seed=0)
