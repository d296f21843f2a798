"""What every test starts from: one thread, the same examples each time, no time limit on a property's example; and the two
axes that tests of models run along: how a model knows positions, and what it computes in."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

settings.register_profile("rlhf", deadline=None, derandomize=True, max_examples=60, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "rlhf"))
torch.set_num_threads(1)


@pytest.fixture(params=["llama", "gpt2"])
def architecture(request: pytest.FixtureRequest) -> str:
    """Rotary positions, and absolute ones."""
    return str(request.param)


@pytest.fixture(params=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest) -> str:
    """What models compute in."""
    return str(request.param)
