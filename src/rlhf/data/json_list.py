"""The items of a JSON list, one at a time: a file of any size takes the memory of a piece of it, or of its longest item."""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf.data.files import broken_gzip, not_utf8, open_bytes, refuse_constant
from rlhf.errors import UserError

PIECE = 2**20  # bytes
MORE = ("", ".", "e", "E")  # a number may go on in the next piece
SPACE = re.compile(r"[ \t\n\r]*")


def json_list(path: Path) -> Iterator[tuple[int, Any]]:
    """(line it begins in, item) of each item. UserError says where the list breaks."""
    decoder = json.JSONDecoder(parse_constant=refuse_constant)
    with open_bytes(path) as file:
        text = _Text(path, file)
        text.skip("[")
        closed = text.next() == "]"
        while not closed:
            yield text.item(decoder)
            if not (closed := text.next() == "]"):
                text.skip(",")
        text.skip("]")
        if text.next():
            raise text.fault("Extra data", text.at)


class _Text:
    """A text that is read piece by piece; `at` is the first character that has not been understood yet."""

    def __init__(self, path: Path, file: Any) -> None:
        self.at = 0
        self._path, self._file = path, file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._held, self._line, self._line_starts = "", 1, 0
        self._dropped = 0  # bytes of the line that are held no more

    def next(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            self._go_to(SPACE.match(self._held, self.at).end())  # type: ignore[union-attr]
            if self.at < len(self._held) or not self._read():
                return self._held[self.at : self.at + 1]

    def skip(self, wanted: str) -> None:
        if self.next() != wanted:
            raise self.fault(f"Expecting '{wanted}' delimiter", self.at)
        self._go_to(self.at + 1)

    def item(self, decoder: json.JSONDecoder) -> tuple[int, Any]:
        """What stands next: no piece is too short for it, as long as there is more to read."""
        self.next()
        while True:
            line = self._line
            try:
                value, end = decoder.raw_decode(self._held, self.at)
                if self._held[end : end + 1] not in MORE or not self._read():
                    self._go_to(end)
                    return line, value
            except json.JSONDecodeError as error:
                at = error.pos - self.at
                if not self._read():
                    raise self.fault(error.msg, self.at + at) from error
            except (ValueError, RecursionError) as error:
                raise UserError(f"{self._path}:{line}: not JSON: {error}") from error

    def fault(self, message: str, position: int) -> UserError:
        line = self._line + self._held.count("\n", self.at, position)
        newline = self._held.rfind("\n", 0, position)
        cut = "; the text ends too early: is the file complete?"
        early = message.startswith("Unterminated") or not self._held[position:].strip()
        column = position - (newline if newline >= 0 else self._line_starts - 1)
        return UserError(f"{self._path}:{line}: not JSON: {message} (column {column}){cut if early else ''}")

    def _go_to(self, position: int) -> None:
        passed = self._held.count("\n", self.at, position)
        if passed:
            self._line += passed
            self._line_starts = self._held.rfind("\n", self.at, position) + 1
        self.at = position

    def _read(self) -> bool:
        """Drops what has been understood and reads at least as much as it keeps; False at the end of the file."""
        _, newline, last = self._held[: self.at].rpartition("\n")
        self._dropped = len(last.encode()) + (0 if newline else self._dropped)
        self._held, self._line_starts, self.at = self._held[self.at :], self._line_starts - self.at, 0
        while piece := self._bytes(max(PIECE, len(self._held))):
            if more := self._decoded(piece):  # less than a character may be none
                self._held += more
                return True
        self._decoded(b"")
        return False

    def _bytes(self, count: int) -> bytes:
        try:
            return bytes(self._file.read(count))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise broken_gzip(self._path, self._line + self._held.count("\n"), error) from error

    def _decoded(self, piece: bytes) -> str:
        try:
            return self._decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            before, byte = self._held.encode() + error.object[: error.start], error.object[error.start]
            _, newline, last = before.rpartition(b"\n")
            position = len(last) + (0 if newline else self._dropped) + 1
            raise not_utf8(self._path, self._line + before.count(b"\n"), position, byte) from error
