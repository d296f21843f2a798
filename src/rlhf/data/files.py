"""Reads and writes what the stages hand on: records and documents as JSON lines in UTF-8.

A broken file is named with its line: `artifacts/prepare/prompts.jsonl:17: field 'split' is missing`.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self, TypeVar

from rlhf.errors import UserError

Row = dict[str, Any]
GZIP = b"\x1f\x8b"  # RFC 1952


class Record(Protocol):
    """What a line of a file holds; `rlhf.records` has them all."""

    def to_row(self) -> Row: ...

    @classmethod
    def from_row(cls, row: Row) -> Self: ...


class Writable(Protocol):
    """Anything that can say itself as a row."""

    def to_row(self) -> Row: ...


R = TypeVar("R", bound=Record)


def read_records(path: Path, kind: type[R]) -> list[R]:
    """Every line of a file as a record, in order. UserError names the line that is no record of this kind."""
    return [_record(f"{path}:{number}", kind, row) for number, row in json_lines(path)]


def write_records(path: Path, records: Iterable[Writable]) -> None:
    """One record a line. ValueError for NaN and infinity."""
    _write_lines(path, (record.to_row() for record in records))


def read_documents(path: Path) -> list[str]:
    """The texts of a file with {"text": …} a line. UserError names the line that has none."""
    return [_text(f"{path}:{number}", row) for number, row in json_lines(path)]


def write_documents(path: Path, documents: Iterable[str]) -> None:
    """{"text": …} a line: the form in which pretraining corpora are shared."""
    _write_lines(path, ({"text": document} for document in documents))


def json_lines(path: Path) -> Iterator[tuple[int, Row]]:
    """(line number from 1, object) of each line that is not blank. UserError for a line that is no JSON object."""
    for number, line in text_lines(path):
        if line.strip():
            row = parse_json(path, line.rstrip("\r\n"), number)
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number}: a line must be a JSON object like {{…}}, not {shown(row)}")
            yield number, row


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text with its end) of a UTF-8 file, unpacked if it is gzip; a BOM is skipped."""
    number = 0
    with open_bytes(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                yield number, _decoded(path, number, line)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise broken_gzip(path, number, error) from error


def broken_gzip(path: Path, line: int, error: Exception) -> UserError:
    return UserError(f"{path}: broken gzip file after line {line} ({error}); copy or download it again")


def not_utf8(path: Path, line: int, position: int, byte: int) -> UserError:
    """position: of the byte in its line, from 1."""
    where = f"byte 0x{byte:02x} at position {position} of the line"
    return UserError(f"{path}:{line}: not UTF-8 ({where}): save the file as UTF-8")


def open_bytes(path: Path) -> io.BufferedIOBase:
    """An open file, unpacked while it is read if its first bytes are those of gzip. UserError if it cannot be read."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file in it")
    try:
        with path.open("rb") as file:
            packed = file.read(len(GZIP)) == GZIP
        return gzip.open(path) if packed else path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def parse_json(path: Path, text: str, line: int | None = None) -> Any:
    """The value of a JSON text that begins at `line` of a file, or is the whole of it. UserError says where it breaks."""
    try:
        return json.loads(text, parse_constant=refuse_constant)
    except json.JSONDecodeError as error:
        ends_early = error.msg.startswith("Unterminated") or not text[error.pos :].strip()
        cut = "; the text ends too early: is the file complete?" if ends_early else ""
        number = (line or 1) + error.lineno - 1
        raise UserError(f"{path}:{number}: not JSON: {error.msg} (column {error.colno}){cut}") from error
    except (ValueError, RecursionError) as error:
        where = f"{path}:{line}" if line else f"{path}"
        raise UserError(f"{where}: not JSON: {error}") from error


def shown(value: Any) -> str:
    """A value as JSON in a line of a message, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:59] + "…"


def refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(path, number, error.start + 1, line[error.start]) from error


def _record(where: str, kind: type[R], row: Row) -> R:
    try:
        return kind.from_row(row)
    except KeyError as error:
        raise UserError(f"{where}: field {error} is missing") from error
    except (TypeError, IndexError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: not a {kind.__name__}: {error}") from error


def _text(where: str, row: Row) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        raise UserError(f"{where}: field 'text' must be text, not {shown(text)}")
    return text


def _write_lines(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
