"""Text comes out of every kind of file as it went in, to the byte: only the white space around a turn goes."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as how
from hypothesis import strategies as st

from rlhf.data.entries import read_entries
from rlhf.data.files import read_records, write_records
from rlhf.data.raw import read_raw
from rlhf.records import Message, Preference
from tests.data.settings import settings

HARD = [
    "e\u0301 is not \u00e9",  # a combining mark
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",  # one family and one flag, of several characters
    "one\r\ntwo\rthree\nfour",
    "a\u2028b\u2029c\x85d\x0be\x0cf",  # ends of a line to some
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
    "\u0627\u0644\u0633\u0644\u0627\u0645 \u202eabc\u202c",  # right to left, and a mark that turns it
    'say "hi",\tplease; it\'s \\n',
    "a\ufeffb\n\ufeffc",
]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=40)
UNHURRIED = how(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
KINDS = ["jsonl", "json", "csv", "tsv", "parquet"]


def written(folder: Path, kind: str, rows: list[dict[str, Any]], packed: bool) -> Path:
    path = folder / "data"  # its name says nothing
    match kind:
        case "jsonl":
            path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows).encode())
        case "json":
            path.write_bytes(json.dumps(rows, ensure_ascii=False).encode())
        case "csv" | "tsv":
            with path.open("w", encoding="utf-8", newline="") as file:
                table = csv.DictWriter(file, list(rows[0]), delimiter="," if kind == "csv" else "\t", quoting=csv.QUOTE_ALL)
                table.writeheader()
                table.writerows(rows)
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(TEXT, min_size=1, max_size=4), packed=st.booleans())
@example(texts=HARD, packed=False)
@example(texts=HARD, packed=True)
@UNHURRIED
def test_every_kind_keeps_every_text(tmp_path: Path, kind: str, texts: list[str], packed: bool) -> None:
    rows = [{"prompt": text, "completion": f"<{text}>"} for text in texts]
    assert [row.values for row in read_raw(written(tmp_path, kind, rows, packed))] == rows


def sides(*turns: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(role, text) for role, text in turns)  # type: ignore[arg-type]


@given(texts=st.lists(TEXT, min_size=6, max_size=6))
@example(texts=HARD[:6])
@UNHURRIED
def test_a_conversation_keeps_every_turn_from_the_file_to_the_records(tmp_path: Path, texts: list[str]) -> None:
    names = ("system", "asked", "said", "again", "chosen", "rejected")
    kept = {name: f"<{text}>" for name, text in zip(names, texts, strict=True)}
    talk = [("system", kept["system"]), ("human", kept["asked"]), ("gpt", kept["said"]), ("human", kept["again"])]
    row = {
        "conversations": [{"from": role, "value": f"\u3000{text}\r\n"} for role, text in talk],
        "chosen": f" {kept['chosen']}",
        "rejected": {"from": "gpt", "value": kept["rejected"]},
    }
    path = written(tmp_path, "jsonl", [row], packed=False)
    (entry,) = read_entries(path, settings("conversations", path), Counter())
    prompt = sides(*zip(("system", "user", "assistant", "user"), (kept[name] for name in names[:4]), strict=True))
    assert (entry.prompt, entry.answers) == (prompt, (kept["chosen"], kept["rejected"]))
    preference = Preference(entry.prompt, *entry.answers, "train", "dataset")  # type: ignore[misc, arg-type]
    write_records(tmp_path / "records.jsonl", [preference])
    assert read_records(tmp_path / "records.jsonl", Preference) == [preference]
    for text in kept.values():
        assert json.dumps(text, ensure_ascii=False)[1:-1].encode() in (tmp_path / "records.jsonl").read_bytes()


@given(texts=st.lists(TEXT, min_size=5, max_size=5))
@example(texts=HARD[2:7])
@UNHURRIED
def test_of_a_transcript_the_last_turn_alone_is_the_response(tmp_path: Path, texts: list[str]) -> None:
    names = ("asked", "said", "again", "chosen", "rejected")
    kept = {name: f"<{text}>" for name, text in zip(names, texts, strict=True)}
    before = f"\n\nHuman: {kept['asked']}\n\nAssistant: {kept['said']}\r\n\r\nHuman: {kept['again']}\n\nAssistant: "
    row = {"chosen": before + kept["chosen"], "rejected": before + kept["rejected"]}
    path = written(tmp_path, "jsonl", [row], packed=False)
    (entry,) = read_entries(path, settings("hh_rlhf", path), Counter())
    assert entry.prompt == sides(("user", kept["asked"]), ("assistant", kept["said"]), ("user", kept["again"]))
    assert entry.answers == (kept["chosen"], kept["rejected"])
