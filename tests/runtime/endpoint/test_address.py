"""The address and the key come from the environment, and what is wrong with them is said without showing them."""

from __future__ import annotations

import pytest

from rlhf.errors import UserError
from rlhf.runtime.endpoint.address import Address, address_from_environment
from tests.loopback import KEY


def from_environment(monkeypatch: pytest.MonkeyPatch, url: str | None, key: str | None) -> Address:
    for name, value in {"RLHF_JUDGE_URL": url, "RLHF_JUDGE_KEY": key}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    return address_from_environment()


def test_white_space_and_the_last_slash_go(monkeypatch: pytest.MonkeyPatch) -> None:
    found = from_environment(monkeypatch, " https://judge.example/v1/ \n", f"{KEY}\n")
    assert (found.url, found.key, found.completions) == (
        "https://judge.example/v1",
        KEY,
        "https://judge.example/v1/chat/completions",
    )
    assert from_environment(monkeypatch, "http://127.0.0.1:8000/v1", None).key == ""
    assert repr(found) == "Address()"


@pytest.mark.parametrize(
    ("url", "key", "message"),
    [
        (None, None, "RLHF_JUDGE_URL is not set: it says where the judge's server is, as in RLHF_JUDGE_URL=http"),
        ("  ", None, "RLHF_JUDGE_URL is not set"),
        ("judge.example/secret", None, "RLHF_JUDGE_URL must be a base URL, http:// or https://"),
        ("ftp://judge.example/secret", None, "RLHF_JUDGE_URL must be a base URL"),
        ("http://judge.example:99999/secret", None, "RLHF_JUDGE_URL must be a base URL"),
        ("http://", None, "RLHF_JUDGE_URL must be a base URL"),
        ("http://judge.example", "se cret", "RLHF_JUDGE_KEY must be one word of ASCII characters"),
        ("http://judge.example", "secret\nsecret", "RLHF_JUDGE_KEY must be one word"),
        ("http://judge.example", "sécret", "RLHF_JUDGE_KEY must be one word"),
    ],
)
def test_what_is_wrong_is_said_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str | None, key: str | None, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        from_environment(monkeypatch, url, key)
    assert str(caught.value).startswith(message)
    assert "cret" not in str(caught.value)
