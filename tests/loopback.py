"""A server on loopback that speaks OpenAI's chat completions as it is told to, and remembers what it was asked."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "-".join(("sk", "not", "to", "be", "seen"))  # nowhere as a whole: a clone of this repository is looked through for it


@dataclass(frozen=True)
class Reply:
    """What the server answers; `hang` waits until the server is closed, `breaks` closes the connection without a word."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    breaks: bool = False


@dataclass(frozen=True)
class Request:
    """What the server was sent, to the byte. `number` counts from 1."""

    number: int
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def question(self) -> str:
        return str(json.loads(self.body)["messages"][0]["content"])

    def response(self, letter: str) -> str:
        """The one of the two responses that the default template shows under this letter."""
        found = re.search(rf"^<response_{letter}>\n(.*?)\n</response_{letter}>$", self.question, re.MULTILINE | re.DOTALL)
        assert found
        return found[1]


def says(text: str | None, read: int = 7, written: int = 3, finish_reason: str | None = "stop") -> Reply:
    """A chat completion, with its usage."""
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return Reply(body=json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode())


def complains(status: int, message: str = "no", **headers: str) -> Reply:
    return Reply(status, json.dumps({"error": {"message": message}}).encode(), headers)


class Server(ThreadingHTTPServer):
    """Answers every request by a rule."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, rule: Callable[[Request], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.rule = rule
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nothing to print."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            request = Request(len(self.server.requests) + 1, self.path, dict(self.headers), body)
            self.server.requests.append(request)
        reply = self.server.rule(request)
        if reply.hang:
            self.server.closing.wait()
            return
        if reply.breaks:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in (reply.headers | {"Content-Length": str(len(reply.body))}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(reply.body)


@contextmanager
def serve(rule: Callable[[Request], Reply]) -> Iterator[Server]:
    server = Server(rule)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
