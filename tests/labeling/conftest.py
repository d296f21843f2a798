"""A run of the stage `label`, with settings of the test's choice and nobody to tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlhf.runtime import settings
from rlhf.runtime.run import Run
from rlhf.runtime.tracking import Tracker

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Each with an output of its own and one root: what is remembered is remembered for all."""
    made = []

    def make(*overrides: str) -> Run:
        made.append(tmp_path / f"output_{len(made)}")
        made[-1].mkdir()
        config = settings.validate(settings.values_of(settings.compose(ROOT, overrides)))
        return Run("label", config, made[-1], torch.device("cpu"), tmp_path, Tracker({}, None, 0.0))

    return make
