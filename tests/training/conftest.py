from __future__ import annotations

import pytest


@pytest.fixture(params=["llama", "gpt2"])
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)
