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
        ("http://name:secret@judge.example/v1", None, "RLHF_JUDGE_URL has a name or a password before an @, which is not"),
        ("https://secret@judge.example/v1", None, "RLHF_JUDGE_URL has a name or a password before an @, which is not sent"),
        ("https://judge.example/v1?api-version=secret", None, "RLHF_JUDGE_URL has a query or a fragment (? or #): give"),
        ("https://judge.example/v1#secret", None, "RLHF_JUDGE_URL has a query or a fragment"),
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


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://judge.example/v1", True),
        ("http://10.0.0.7:8000/v1", True),
        ("http://[2001:db8::1]/v1", True),
        ("http://localhost.example/v1", True),
        ("https://judge.example/v1", False),
        ("http://127.0.0.1:8000/v1", False),
        ("http://127.9.9.9/v1", False),
        ("http://[::1]:8000/v1", False),
        ("http://localhost:8000/v1", False),
    ],
)
def test_a_key_that_others_can_read_on_its_way_is_known(url: str, shown: bool) -> None:
    assert Address(url, KEY).shows_key is shown
    assert not Address(url, "").shows_key
