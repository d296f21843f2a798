"""Reads files of the user's own, row by row, each with its place: jsonl, json, csv, tsv and parquet, also packed by gzip.

What a file is shows in its first bytes, not in its name. No more than one row, or one batch of Parquet, is in memory. The
text formats are read by the standard library, because a row there must be known by its line and keep its text as it is:
`datasets` knows no lines, and takes "NA" for nothing and a date for a number.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlhf.data.files import GZIP, broken_gzip, json_lines, open_bytes, shown, text_lines
from rlhf.data.json_list import json_list
from rlhf.errors import UserError

if TYPE_CHECKING:
    from pyarrow import RecordBatch

LONGEST_CELL = 2**31 - 1  # characters of a CSV cell; the default of 131072 is short for a conversation
BATCH = 256  # rows of Parquet in memory at once
PIECE = 2**20  # bytes of a column of Parquet read at once
HEAD = 2**16  # bytes that say of what kind a file is
PARQUET = b"PAR1"
ENDINGS: dict[str, Literal["json", ",", "\t"]] = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": ",",
    ".tsv": "\t",
}


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it came, by column, and where it stands: `data/x.jsonl:17`."""

    place: str
    values: dict[str, Any]


def read_raw(path: Path) -> Iterator[RawRow]:
    """The rows of a file, in order, one at a time.

    Raises:
        UserError: there is no such file, it is broken (with the line), of another kind, or empty.
    """
    empty = True
    for row in _rows(path):
        yield row
        empty = False
    if empty:
        raise UserError(f"{path}: has no rows")


def _rows(path: Path) -> Iterator[RawRow]:
    head = _head(path)
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    match start:
        case b"P" if head.startswith(PARQUET):
            return _parquet_rows(path)
        case b"[":
            return _json_rows(path)
        case b"{":
            _refuse_spread(path, head)
            return _json_line_rows(path)
    match _named_kind(path, head):
        case "json":
            return _json_line_rows(path)
        case "," | "\t" as delimiter:
            return _csv_rows(path, delimiter)
    if not start:
        return iter(())
    raise UserError(f"{path}: of no known kind: its first bytes are not those of JSON, CSV, TSV or Parquet")


def _head(path: Path) -> bytes:
    try:
        with open_bytes(path) as file:
            return file.read1(HEAD)  # no more than there is before a file breaks off: its reader says where
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise broken_gzip(path, 0, error) from error


def _refuse_spread(path: Path, head: bytes) -> None:
    """UserError for an object of JSON that goes over several lines: its first line is none, and the next begins none."""
    lines = [line.strip() for line in head.splitlines() if line.strip()]
    if len(lines) > 1 and not lines[0].endswith(b"}") and not lines[1].startswith(b"{"):
        raise UserError(
            f"{path}:1: a JSON object over several lines: write each object on one line, or all of them as a list, "
            "[{…}, {…}]"
        )


def _named_kind(path: Path, head: bytes) -> Literal["json", ",", "\t"] | None:
    """Of a text that is no JSON: the delimiter that its header has more of; where that says nothing, what its name says."""
    named = ENDINGS.get(Path(path.name.lower().removesuffix(".gz")).suffix)
    header = head.partition(b"\n")[0]
    tabs, commas = header.count(b"\t"), header.count(b",")
    if named == "json" or tabs == commas:
        return named
    return "\t" if tabs > commas else ","


def _json_line_rows(path: Path) -> Iterator[RawRow]:
    for number, values in json_lines(path):
        yield RawRow(f"{path}:{number}", values)


def _json_rows(path: Path) -> Iterator[RawRow]:
    for line, values in json_list(path):
        if not isinstance(values, dict):
            raise UserError(f"{path}:{line}: an item of the list must be a JSON object like {{…}}, not {shown(values)}")
        yield RawRow(f"{path}:{line}", values)


def _csv_rows(path: Path, delimiter: str) -> Iterator[RawRow]:
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader((line for _, line in text_lines(path)), delimiter=delimiter, strict=True)
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            place = f"{path}:{line}"
            line = reader.line_num + 1
            if cells and not header:
                header = _header(place, cells)
            elif cells:
                yield RawRow(place, _by_column(place, header, cells))
    except csv.Error as error:
        raise UserError(f"{path}:{line}: not CSV: {error} (the row begins here)") from error


def _header(place: str, cells: list[str]) -> list[str]:
    twice = sorted({name for name in cells if cells.count(name) > 1})
    if twice:
        raise UserError(f"{place}: the header names column {twice[0]!r} twice")
    return cells


def _by_column(place: str, header: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(header):
        raise UserError(f"{place}: the row has {len(cells)} cells, but the header has {len(header)} columns")
    return dict(zip(header, cells, strict=True))


def _parquet_rows(path: Path) -> Iterator[RawRow]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    with tempfile.TemporaryDirectory() as folder:
        plain = _unpacked(path, Path(folder))
        try:
            with ParquetFile(plain, pre_buffer=False, buffer_size=PIECE) as file:  # else it holds what it has read
                number = 0
                for batch in file.iter_batches(batch_size=BATCH):
                    for values in _values(path, number, batch):
                        number += 1
                        yield RawRow(f"{path}: row {number}", values)
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path}: no rows of Parquet can be read from it ({reason})") from error


def _values(path: Path, before: int, batch: RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch behind so many others; text in Parquet may be anything, and Python's is not."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError as whole:
        for i in range(batch.num_rows):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                try:
                    column[i].as_py()
                except UnicodeDecodeError as error:
                    place = f"{path}: row {before + i + 1}: field '{name}'"
                    byte = f"byte 0x{error.object[error.start]:02x} at position {error.start + 1}"
                    raise UserError(f"{place}: not UTF-8 ({byte}): write the file anew from text in UTF-8") from error
        raise UserError(f"{path}: not UTF-8 ({whole}): write the file anew from text in UTF-8") from whole


def _unpacked(path: Path, folder: Path) -> Path:
    """The file itself, unless it is packed."""
    with path.open("rb") as file:
        if file.read(len(GZIP)) != GZIP:
            return path
    plain = folder / "unpacked.parquet"
    try:
        with open_bytes(path) as packed, plain.open("wb") as file:
            shutil.copyfileobj(packed, file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: broken gzip file ({error}); copy or download it again") from error
    return plain
