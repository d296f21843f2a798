"""A client of a server on loopback, whose pauses are written down and take no time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rlhf.config import Endpoint
from rlhf.runtime.endpoint.address import Address
from rlhf.runtime.endpoint.client import Client, client_of
from tests.loopback import KEY, Server

SETTINGS: dict[str, Any] = {
    "model": "judge",
    "temperature": 0.0,
    "max_answer_tokens": 20,
    "limit_name": "max_tokens",
    "concurrency": 4,
    "requests_per_minute": 0,
    "most_requests": 0,
    "most_tokens": 0,
    "retries": 3,
    "timeout_seconds": 10.0,
}


@pytest.fixture
def pauses() -> list[float]:
    """In seconds, of the clients of a test; none for a turn that is free."""
    return []


@pytest.fixture
def make_client(pauses: list[float]) -> Callable[..., Client]:
    def make(server: Server, key: str = KEY, **changes: Any) -> Client:
        made = client_of(Address(server.url, key), Endpoint(**SETTINGS | changes))

        def wait(seconds: float) -> bool:
            if seconds:
                pauses.append(seconds)
            return made.stop.is_set()

        return replace(made, wait=wait)

    return make
