"""Where a judge's server is, and the key to it. Both come from the environment and go nowhere but into the request."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from requests import PreparedRequest

from rlhf.errors import UserError

URL, KEY = "RLHF_JUDGE_URL", "RLHF_JUDGE_KEY"
HIDDEN = "[hidden]"


@dataclass(frozen=True, slots=True)
class Address:
    """A server's base URL, and the key it asks for ("" for none); neither is shown."""

    url: str = field(repr=False)
    key: str = field(repr=False)

    @property
    def completions(self) -> str:
        return f"{self.url}/chat/completions"

    @property
    def shows_key(self) -> bool:
        """Whether the key leaves this machine for all on its way to read."""
        parts = urlsplit(self.url)
        return bool(self.key) and parts.scheme == "http" and not _is_here(str(parts.hostname))

    def sign(self, request: PreparedRequest) -> PreparedRequest:
        """Puts the key into the request's head. (requests takes none from ~/.netrc where it is told how to sign.)"""
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request

    def hide(self, text: str) -> str:
        """The text without the key and without the address."""
        for secret in (self.key, self.url, urlsplit(self.url).netloc):
            text = text.replace(secret, HIDDEN) if secret else text
        return text


def address_from_environment() -> Address:
    """UserError where the URL is missing or is none, or where the key could not stand in the head of a request."""
    url, key = os.environ.get(URL, "").strip().rstrip("/"), os.environ.get(KEY, "").strip()
    if not url:
        raise UserError(
            f"{URL} is not set: it says where the judge's server is, as in {URL}=http://127.0.0.1:8000/v1 (and {KEY} has "
            "the key, where it asks for one); or let a model of this machine judge, with labeler.path=DIR"
        )
    if not _is_url(url):
        raise UserError(f"{URL} must be a base URL, http:// or https://, as in http://127.0.0.1:8000/v1")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise UserError(f"{URL} has a name or a password before an @, which is not sent: put the key into {KEY}")
    if "?" in url or "#" in url:
        raise UserError(f"{URL} has a query or a fragment (? or #): give the base alone, /chat/completions is put behind it")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(f"{KEY} must be one word of ASCII characters: something else was put into it")
    return Address(url, key)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
