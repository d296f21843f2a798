"""Asks a server one question, again where that may help.

requests carries it, for the proxies and certificates of the environment; when to try again, and after how long, is urllib3's
`Retry` (Retry-After, exponential back-off, jitter). It is asked here and not inside of requests, so that every try has its
turn and is paid from the budget.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import InvalidHeader, MaxRetryError, NewConnectionError
from urllib3.util import Retry

from rlhf.config import Endpoint
from rlhf.errors import UserError
from rlhf.runtime.endpoint.address import KEY, URL, Address
from rlhf.runtime.endpoint.limits import Budget, Pace
from rlhf.runtime.endpoint.store import Answer

BACK_OFF = 0.5  # seconds; doubled with every try
PASSING = {408, 409, 425, 429, *range(500, 600)}  # statuses that another try may be spared
OF_THE_QUESTION = {400, 413, 422}  # statuses that say something of one question, and nothing of the next one
LONGEST_WAIT = 600.0  # seconds that a server may ask to be left alone; for longer nobody should have to sit there
MOST_SECONDS = 10**9  # of a Retry-After, as far as it is read
SHOWN = 200  # characters of a server's complaint
OVERHEAD = 64  # tokens that a server's chat template may put around a question
MOST_COUNTED = 2**53  # tokens: a server that says more, or less than none, does not count


class Stopped(Exception):
    """Somebody has asked to stop while this waited."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a try has failed, for how long the server asks to be left alone (None: it does not say), and whether it may have
    cost something all the same: the question was sent, and what became of it nobody said."""

    what: str
    seconds: float | None = None
    may_cost: bool = False


@dataclass(frozen=True, slots=True)
class Client:
    """One server, asked by several threads. `wait` pauses for seconds and says whether to stop."""

    address: Address
    settings: Endpoint
    session: requests.Session
    pace: Pace
    budget: Budget
    stop: threading.Event = field(default_factory=threading.Event)
    wait: Callable[[float], bool] | None = None

    def body(self, question: str) -> dict[str, Any]:
        """What is sent: all that an answer depends on."""
        asked = {"model": self.settings.model, "messages": [{"role": "user", "content": question}]}
        heat = {} if self.settings.temperature is None else {"temperature": self.settings.temperature}
        return asked | heat | {self.settings.limit_name: self.settings.max_answer_tokens}

    def key(self, question: str) -> str:
        return hashlib.sha256(json.dumps(self.body(question), sort_keys=True).encode()).hexdigest()

    def ask(self, question: str) -> Answer:
        """Tries until there is an answer.

        Raises:
            UserError: the server wants another key, knows no such model, or asks to be left alone for long; the tries are
                used up, or the budget is.
            Stopped: `stop` was set.
        """
        retry = Retry(total=self.settings.retries, backoff_factor=BACK_OFF, backoff_jitter=BACK_OFF)
        while True:
            self._pause(self.pace.turn())
            found = self._try(question, again=bool(retry.history))
            if isinstance(found, Answer):
                return found
            try:
                retry = retry.increment()
            except MaxRetryError:
                tries = self.settings.retries + 1
                raise UserError(f"the judge's server gave no answer in {tries} tries, last {found.what}") from None
            if found.seconds is not None and found.seconds > LONGEST_WAIT:
                raise UserError(
                    f"the judge's server asks to be left alone for {found.seconds / 60:.0f} minutes ({found.what}), and "
                    f"more than {LONGEST_WAIT / 60:.0f} are not waited for"
                )
            if found.seconds is None:
                self._pause(retry.get_backoff_time())
            else:
                self.pace.hold(found.seconds)

    def _pause(self, seconds: float) -> None:
        if (self.wait or self.stop.wait)(seconds):
            raise Stopped

    def _try(self, question: str, again: bool) -> Answer | Fault:
        most = len(question.encode()) + OVERHEAD + self.settings.max_answer_tokens  # a token is a byte at least
        self.budget.begin(most, again)
        used = 0
        try:
            found = self._send(json.dumps(self.body(question), ensure_ascii=False).encode())
            match found:
                case Answer(text=str()):
                    used = found.prompt_tokens + found.answer_tokens or most
                case Fault(may_cost=True):
                    used = most
            return found
        finally:
            self.budget.end(most, used)

    def _send(self, body: bytes) -> Answer | Fault:
        try:
            response = self.session.post(
                self.address.completions,
                data=body,
                headers={"Content-Type": "application/json; charset=utf-8"},
                auth=self.address.sign,
                timeout=self.settings.timeout_seconds,
                allow_redirects=False,  # to wherever it leads, the key does not go
            )
        except requests.Timeout as error:
            return Fault(f"nothing for {self.settings.timeout_seconds:g} s", may_cost=_was_sent(error))
        except requests.RequestException as error:
            what = f"{type(error).__name__}: no connection, or one that broke off"
            return Fault(what, may_cost=_was_sent(error))
        if response.status_code == requests.codes.ok:
            return read_answer(response.content) or Fault("an answer that is no chat completion", may_cost=True)
        if response.status_code in PASSING:
            return Fault(f"status {response.status_code}{self._complaint(response)}", _retry_after(response))
        if response.status_code in OF_THE_QUESTION:
            return Answer(None, refusal=f"status {response.status_code}{self._complaint(response)}")
        raise UserError(self._why_not(response))

    def _why_not(self, response: requests.Response) -> str:
        match response.status_code:
            case 401 | 403:  # nothing of what it says: some servers repeat the key
                return f"the judge's server refuses the key (status {response.status_code}): set {KEY} to a right one"
            case 404:
                return (
                    f"the judge's server knows no model {self.settings.model} (endpoint.model), or {URL} does not lead to "
                    f"its chat completions (status 404{self._complaint(response)})"
                )
        return f"the judge's server answers with status {response.status_code}{self._complaint(response)}"

    def _complaint(self, response: requests.Response) -> str:
        """`: rate limit reached` where the server gives a reason."""
        text = response.content.decode(errors="replace")
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            text = _writable(str(json.loads(response.content)["error"]["message"]))
        line = " ".join(self.address.hide(text).split())
        return f": {line[:SHOWN]}" if line else ""


def read_answer(content: bytes) -> Answer | None:
    """What a chat completion says; None for bytes that are none."""
    try:
        said = json.loads(content)
        choice = said["choices"][0]
        text, reason = choice["message"].get("content"), choice.get("finish_reason")
        read, written = _usage_of(said)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None
    if not isinstance(text, str | None):
        return None
    return Answer(_writable(text or ""), read, written, finish_reason=_writable(str(reason or "")))


def _writable(text: str) -> str:
    """The text with "?" for halves of a character, which JSON can spell and UTF-8 cannot."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _usage_of(said: dict[str, Any]) -> tuple[int, int]:
    """The tokens read and written; none of both where the server does not count, or says of either what is no count."""
    usage = said.get("usage")
    said_of = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    match [count for count in said_of if isinstance(count, int | float) and 0 <= count < MOST_COUNTED]:
        case [read, written]:
            return int(read), int(written)
    return 0, 0


def _was_sent(error: requests.RequestException) -> bool:
    """Whether the question may have reached the server before the connection failed."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return not isinstance(error, requests.ConnectTimeout) and not isinstance(reason, NewConnectionError)


def _retry_after(response: requests.Response) -> float | None:
    said = response.headers.get("Retry-After")
    with suppress(InvalidHeader):
        return None if said is None else Retry(retry_after_max=MOST_SECONDS).parse_retry_after(said)
    return None


def client_of(address: Address, settings: Endpoint) -> Client:
    """A client with fresh books."""
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=settings.concurrency)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return Client(
        address,
        settings,
        session,
        Pace(settings.requests_per_minute),
        Budget(settings.most_requests, settings.most_tokens),
    )
