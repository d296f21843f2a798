"""A server that stands in for the Hugging Face hub: one set of data at one commit, by what a download asks of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef" * 2 + "01234567"


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # the library asks for many files at once


@contextlib.contextmanager
def serving(name: str, files: Mapping[str, bytes], gated: bool = False) -> Iterator[tuple[str, list[str]]]:
    """The server's address while it runs, and the paths that were asked for so far."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            tree, resolved = f"/api/datasets/{name}/tree/", f"/datasets/{name}/resolve/"
            if gated:
                self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, with_body)
            elif not path.startswith((tree, resolved)):
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
            elif COMMIT not in path:
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, with_body)
            elif path.startswith(tree):
                self._send(200, json.dumps([entry(*file) for file in files.items()]).encode(), {}, with_body)
            elif (file := path.removeprefix(f"{resolved}{COMMIT}/")) in files:
                about = {"ETag": f'"{digest(files[file])}"', "X-Repo-Commit": COMMIT}
                self._send(200, files[file], about, with_body)
            else:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)

        def _send(self, code: int, body: bytes, headers: Mapping[str, str], with_body: bool) -> None:
            self.send_response(code)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    server = Server(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def entry(path: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(content), "oid": digest(content)}
