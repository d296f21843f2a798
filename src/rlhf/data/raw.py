"""Reads files of the user's own, row by row, each with its place: jsonl, json, csv, tsv and parquet, also packed as .gz.

Parquet is read by `datasets`; the text formats by the standard library, because a row there must be known by its line and
keep its text as it is: `datasets` knows no lines, and takes "NA" for nothing and a date for a number.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.data.files import json_lines, open_bytes, parse_json, shown, text_lines
from rlhf.errors import UserError

LONGEST_CELL = 2**31 - 1  # characters of a CSV cell; the default of 131072 is short for a conversation
BATCH = 1000  # rows of Parquet in memory at once
BEFORE_OBJECT = re.compile(r"[\[\s,]*")


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it came, by column, and where it stands: `data/x.jsonl:17`."""

    place: str
    values: dict[str, Any]


def read_raw(path: Path) -> list[RawRow]:
    """Every row of a file, in order; the ending of its name says how to read it.

    Raises:
        UserError: there is no such file, it is broken (with the line), of another kind, or empty.
    """
    ending = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    match ending:
        case ".jsonl" | ".ndjson":
            rows = _json_line_rows(path)
        case ".json":
            rows = _json_rows(path)
        case ".csv":
            rows = _csv_rows(path, ",")
        case ".tsv":
            rows = _csv_rows(path, "\t")
        case ".parquet":
            rows = _parquet_rows(path)
        case _:
            open_bytes(path).close()
            raise UserError(f"{path}: of no known kind: name it .jsonl, .json, .csv, .tsv or .parquet, with or without .gz")
    found = list(rows)
    if not found:
        raise UserError(f"{path}: has no rows")
    return found


def _json_line_rows(path: Path) -> Iterator[RawRow]:
    for number, values in json_lines(path):
        yield RawRow(f"{path}:{number}", values)


def _json_rows(path: Path) -> Iterator[RawRow]:
    """The objects of one list, or of one object a line, which many name .json too."""
    text = "\n".join(line for _, line in text_lines(path))
    if not text.lstrip().startswith("["):
        yield from _json_line_rows(path)
        return
    decoder, line, end = json.JSONDecoder(), 1, 0
    for values in parse_json(path, text):
        start = _end_of(BEFORE_OBJECT, text, end)
        line += text.count("\n", end, start)
        if not isinstance(values, dict):
            raise UserError(f"{path}:{line}: an item of the list must be a JSON object like {{…}}, not {shown(values)}")
        yield RawRow(f"{path}:{line}", values)
        _, end = decoder.raw_decode(text, start)
        line += text.count("\n", start, end)


def _end_of(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position


def _csv_rows(path: Path, delimiter: str) -> Iterator[RawRow]:
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader((line + "\n" for _, line in text_lines(path)), delimiter=delimiter, strict=True)
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
    with tempfile.TemporaryDirectory() as folder:
        plain = _unpacked(path, Path(folder)) if path.suffix == ".gz" else path
        open_bytes(plain).close()
        rows = _parquet_values(path, plain, Path(folder))
    for number, values in enumerate(rows, start=1):
        yield RawRow(f"{path}: row {number}", values)


def _parquet_values(path: Path, plain: Path, cache: Path) -> list[dict[str, Any]]:
    """Rows by `datasets`, whose cache goes with the folder it is in."""
    import datasets  # takes a second, which the other kinds of file need not pay

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # the complaint below says it
    try:
        table = datasets.Dataset.from_parquet(str(plain), cache_dir=str(cache), keep_in_memory=True, batch_size=BATCH)
        return list(table)
    except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(f"{path}: no rows of Parquet can be read from it ({reason})") from error


def _unpacked(path: Path, folder: Path) -> Path:
    plain = folder / "unpacked.parquet"
    try:
        with open_bytes(path) as packed, plain.open("wb") as file:
            shutil.copyfileobj(packed, file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: broken gzip file ({error}); copy or download it again") from error
    return plain
