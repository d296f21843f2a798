"""Files of the user's own: every kind gives the same rows, and every fault is named with its line."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf.data.raw import RawRow, read_raw
from rlhf.errors import UserError

ROWS = [{"用户": 'say "hi",\nplease', "LLM": "NA"}, {"用户": "2020-01-01", "LLM": "it's ünï"}]
TURNS = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}] * 2


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the file's own kind, by other hands than the reader's."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    match plain.suffix:
        case ".jsonl" | ".ndjson":
            plain.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".json":
            plain.write_text(json.dumps(rows, indent=1))
        case ".csv":
            pd.DataFrame(rows).to_csv(plain, index=False)
        case ".tsv":
            pd.DataFrame(rows).to_csv(plain, index=False, sep="\t")
        case ".parquet":
            pd.DataFrame(rows).to_parquet(plain)
    if plain != path:
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return path


def complaint_about(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(read_raw(path))
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "json", "csv", "tsv", "parquet"])
def test_every_kind_gives_the_same_rows(tmp_path: Path, kind: str, packing: str) -> None:
    path = written(tmp_path / f"x.{kind}{packing}", ROWS)
    assert [row.values for row in read_raw(path)] == ROWS


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("name", ["x", "x.txt", "x.csv", "x.tsv", "x.json", "x.parquet", "x.gz"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_its_bytes_say_what_a_file_is_and_not_its_name(tmp_path: Path, kind: str, name: str, packing: str) -> None:
    path = written(tmp_path / f"true.{kind}{packing}", ROWS).rename(tmp_path / name)
    if name == "x.json" and kind in ("csv", "tsv"):
        assert complaint_about(path).startswith(":1: not JSON"), "a text that is broken JSON should not be taken for a table"
    else:
        assert [row.values for row in read_raw(path)] == ROWS


def test_of_a_table_with_one_column_the_name_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\nx\ty\n")
    (tmp_path / "x.tsv").write_text("a\nx,y\n")
    assert next(read_raw(tmp_path / "x.csv")).values == {"a": "x\ty"}
    assert next(read_raw(tmp_path / "x.tsv")).values == {"a": "x,y"}


def test_rows_come_before_the_rest_is_read(tmp_path: Path) -> None:
    for kind, end in {"jsonl": "{", "json": ", {", "csv": '"'}.items():
        path = written(tmp_path / f"x.{kind}", ROWS)
        path.write_text(path.read_text().removesuffix("]") + end)
        rows = read_raw(path)
        assert [next(rows).values, next(rows).values] == ROWS
        with pytest.raises(UserError):
            next(rows)


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_lists_of_turns_survive(tmp_path: Path, kind: str) -> None:
    assert [row.values for row in read_raw(written(tmp_path / f"x.{kind}", TURNS))] == TURNS


@pytest.mark.parametrize(
    ("kind", "content", "places"),
    [
        ("jsonl", '{"a": 1}\n\n{"a": 2}', [":1", ":3"]),
        ("json", '{"a": 1}\n\n{"a": 2}', [":1", ":3"]),
        ("json", '[{"a": 1}, {"a":\n [2]},\n\n {"a": 3}]', [":1", ":1", ":4"]),
        ("json", '\ufeff\r\n[\r\n{"a": "]},{\\n"},\r\n{"a": 3}\r\n]', [":3", ":4"]),
        ("csv", 'a,b\n1,"x\ny"\n\n2,z\n', [":2", ":5"]),
        ("csv", '\ufeffa,b\r\n1,"x\r\ny"\r\n2,z', [":2", ":4"]),
    ],
)
def test_a_row_is_known_by_the_line_it_begins_in(tmp_path: Path, kind: str, content: str, places: list[str]) -> None:
    path = tmp_path / f"x.{kind}"
    path.write_bytes(content.encode())
    rows = list(read_raw(path))
    assert [row.place for row in rows] == [f"{path}{place}" for place in places]
    assert all("a" in row.values for row in rows)


def test_a_row_of_parquet_is_known_by_its_number(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet", ROWS)
    assert list(read_raw(path))[1] == RawRow(f"{path}: row 2", ROWS[1])


def test_of_parquet_no_more_than_a_part_is_in_memory(tmp_path: Path) -> None:
    rows = [{"a": random.Random(number).randbytes(2000).hex()} for number in range(4000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet", row_group_size=100)
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in read_raw(tmp_path / "x.parquet")]
    assert max(held) < 0.2 * 4000 * 4000, "of 16 MB"


def test_an_empty_cell_of_parquet_is_null(tmp_path: Path) -> None:
    assert list(read_raw(written(tmp_path / "x.parquet", [{"a": "x"}, {"a": None}])))[1].values == {"a": None}


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("x.jsonl", b"", ": has no rows"),
        ("x.jsonl", b" \n\n", ": has no rows"),
        ("x.json", b"[]", ": has no rows"),
        ("x.csv", b"", ": has no rows"),
        ("x.csv", b"prompt,completion\n", ": has no rows"),
        ("x.txt", b"hello", ": of no known kind: its first bytes are not those of JSON, CSV, TSV or Parquet"),
        ("x.gz", b"hello", ": of no known kind: its first bytes are not those of JSON, CSV, TSV or Parquet"),
        ("x.json", b"[1]", ":1: an item of the list must be a JSON object like {…}, not 1"),
        ("x.json", b'[{"a": 1},\n\n null]', ":3: an item of the list must be a JSON object like {…}, not null"),
        ("x.json", b'[{"a": 1},\n {"a": 2}', ":2: not JSON: Expecting ',' delimiter (column 10); the text ends too early"),
        ("x.json", b'[{"a": NaN}]', ":1: not JSON: NaN is not a number of JSON"),
        (
            "x.json",
            b'{\n  "prompt": "a",\n  "completion": "b"\n}\n',
            ":1: a JSON object over several lines: write each object on one line, or all of them as a list, [{…}, {…}]",
        ),
        ("x.jsonl", b'{"a": 1,\n{"a": 2}\n', ":1: not JSON: Expecting property name enclosed in double quotes (column 9)"),
        ("x.jsonl", b'{"a": "x', ":1: not JSON: Unterminated string starting at (column 7); the text ends too early"),
        ("x.json", b"7", ":1: a line must be a JSON object like {…}, not 7"),
        ("x.csv", b"a,b\n1,2\n1\n", ":3: the row has 1 cells, but the header has 2 columns"),
        ("x.csv", b"a,b\n1,2,3\n", ":2: the row has 3 cells, but the header has 2 columns"),
        ("x.csv", b"a,b,a\n1,2,3\n", ":1: the header names column 'a' twice"),
        ("x.csv", b'a,b\n1,2\n1,"2\n3,4\n', ":3: not CSV: unexpected end of data (the row begins here)"),
        ("x.csv", b"a,b\n1,\xff\n", ":2: not UTF-8 (byte 0xff at position 3 of the line): save the file as UTF-8"),
        ("x.jsonl", '{"a": 1}'.encode("utf-16"), ":1: not UTF-8 (byte 0xff at position 1 of the line)"),
        ("x.parquet", b"PAR1 and no more", ": no rows of Parquet can be read from it (Parquet magic bytes not found"),
        ("x.parquet.gz", gzip.compress(b"PAR1" * 9, mtime=0)[:-9], ": broken gzip file ("),
        ("x.parquet", b"PAR1", ": no rows of Parquet can be read from it (Parquet file size is 4 bytes"),
        ("x.json", b'[{"a": 1} {"a": 2}]', ":1: not JSON: Expecting ',' delimiter (column 11)"),
        ("x.json", b'[{"a": 1}]\n\n{"a": 2}', ":3: not JSON: Extra data (column 1)"),
        (
            "x.json",
            b'[{"a": 1},\n\n {"a": 2, b: 3}]',
            ":3: not JSON: Expecting property name enclosed in double quotes (column 11)",
        ),
        (
            "x.json",
            b'[{"a": 1},\n {"a": "\xff"}]',
            ":2: not UTF-8 (byte 0xff at position 9 of the line): save the file as UTF-8",
        ),
        ("x.jsonl", b"prompt,completion\n", ":1: not JSON: Expecting value (column 1)"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert complaint_about(tmp_path / name).startswith(complaint)


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "parquet.gz", "txt"])
def test_a_missing_file_and_a_folder_are_named(tmp_path: Path, kind: str) -> None:
    assert complaint_about(tmp_path / f"x.{kind}") == ": cannot be read (No such file or directory)"
    (tmp_path / f"folder.{kind}").mkdir()
    assert complaint_about(tmp_path / f"folder.{kind}") == ": is a folder; name a file in it"


def test_parquet_without_rows_is_named(tmp_path: Path) -> None:
    assert complaint_about(written(tmp_path / "x.parquet", [])) == ": has no rows"


@pytest.mark.parametrize("bad", [0, 299])
def test_text_in_parquet_that_is_no_text_is_known_by_its_row_and_column(tmp_path: Path, bad: int) -> None:
    cells = [b"fine"] * 300
    cells[bad] = b"caf\xe9"
    spoilt = pa.array(cells, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": ["a"] * 300, "completion": spoilt}), tmp_path / "x.parquet")
    assert complaint_about(tmp_path / "x.parquet") == (
        f": row {bad + 1}: field 'completion': not UTF-8 (byte 0xe9 at position 4): write the file anew from text in UTF-8"
    )


def test_of_a_table_a_name_in_capitals_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "X.CSV").write_text("a\nx\ty\n")
    (tmp_path / "x.Csv.GZ").write_bytes(gzip.compress(b"a\nx\ty\n"))
    assert [next(read_raw(tmp_path / name)).values for name in ("X.CSV", "x.Csv.GZ")] == [{"a": "x\ty"}] * 2


def test_a_long_cell_is_read_whole(tmp_path: Path) -> None:
    text = "word " * 100_000
    (tmp_path / "x.csv").write_text(f'a\n"{text}"\n')
    assert next(read_raw(tmp_path / "x.csv")).values == {"a": text}


def test_nothing_is_left_in_the_users_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    path = written(tmp_path / "x.parquet", ROWS)
    program = "import sys; from pathlib import Path; from rlhf.data.raw import read_raw; list(read_raw(Path(sys.argv[1])))"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env=kept | {"HOME": str(home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert list(home.iterdir()) == []
