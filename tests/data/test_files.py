"""Records survive the disk; a broken file is named with its line."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.data.files import parse_json, read_documents, read_records, write_documents, write_records
from rlhf.errors import UserError
from rlhf.records import SPLITS, Demonstration, Message, Preference, Prompt, Ranking, Response

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PROMPT = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), max_size=3).map(tuple)
SPLIT = st.sampled_from(SPLITS)
MARGIN = st.one_of(st.just(0.0), st.floats(0, 9))
ASKED = Prompt((Message("user", "who?"),), "train")
LINE = b'{"prompt": [{"role": "user", "content": "who?"}], "split": "train"}'


@given(st.lists(st.builds(Demonstration, PROMPT, TEXT, SPLIT), max_size=4))
def test_demonstrations_survive(tmp_path_factory: pytest.TempPathFactory, records: list[Demonstration]) -> None:
    path = tmp_path_factory.mktemp("records") / "x.jsonl"
    write_records(path, records)
    assert read_records(path, Demonstration) == records


@given(
    st.lists(st.builds(Preference, PROMPT, TEXT, TEXT, SPLIT, TEXT, st.booleans(), st.booleans(), margin=MARGIN), max_size=4)
)
def test_preferences_survive(tmp_path_factory: pytest.TempPathFactory, records: list[Preference]) -> None:
    path = tmp_path_factory.mktemp("records") / "x.jsonl"
    write_records(path, records)
    assert read_records(path, Preference) == records


def test_rankings_survive(tmp_path: Path) -> None:
    answers = (Response("a\u2028b", True, "sft"), Response("", False, "base"))
    ranking = Ranking(ASKED.prompt, answers, (1, 0), "test", "gold", {"temperature": 0.5})
    write_records(tmp_path / "x.jsonl", [ranking])
    assert read_records(tmp_path / "x.jsonl", Ranking) == [ranking]


def test_a_margin_survives_and_none_is_not_written(tmp_path: Path) -> None:
    answers = (Response("a", True, "x"), Response("b", True, "x"))
    given, without = (Ranking(ASKED.prompt, answers, (1, 0), "test", "x", margin=margin) for margin in (0.5, 0.0))
    write_records(tmp_path / "x.jsonl", [given, without])
    assert read_records(tmp_path / "x.jsonl", Ranking) == [given, without]
    assert ["margin" in line for line in (tmp_path / "x.jsonl").read_text().splitlines()] == [True, False]
    assert "margin" not in Preference(ASKED.prompt, "a", "b", "test", "x").to_row()


def test_a_margin_is_between_two() -> None:
    with pytest.raises(ValueError, match=r"a margin \(0.5\) is between two responses, and here are 3"):
        Ranking(ASKED.prompt, (Response("a", True, "x"),) * 3, (0, 1, 2), "test", "x", margin=0.5)


def test_a_file_is_utf_8_with_one_record_a_line(tmp_path: Path) -> None:
    write_records(tmp_path / "x.jsonl", [Prompt((Message("user", "用户\n?"),), "train")] * 2)
    line = '{"prompt": [{"role": "user", "content": "用户\\n?"}], "split": "train"}\n'
    assert (tmp_path / "x.jsonl").read_bytes() == (line * 2).encode()


def test_documents_survive(tmp_path: Path) -> None:
    write_documents(tmp_path / "x.jsonl", ["a\n\nb", ""])
    assert read_documents(tmp_path / "x.jsonl") == ["a\n\nb", ""]


def test_the_ecosystem_reads_our_files(tmp_path: Path) -> None:
    import datasets

    wanted = Preference(ASKED.prompt, "yes", "no", "train", "dataset", settings={"source": "x"})
    write_records(tmp_path / "x.jsonl", [wanted])
    table = datasets.Dataset.from_json(str(tmp_path / "x.jsonl"), cache_dir=str(tmp_path / "cache"))
    assert table[0] == wanted.to_row()


@pytest.mark.parametrize(
    "content",
    [
        LINE + b"\n" + LINE + b"\n",
        LINE + b"\n" + LINE,
        b"\xef\xbb\xbf" + LINE + b"\r\n\r\n" + LINE + b"\r\n",
    ],
    ids=["plain", "no newline at the end", "BOM, CRLF and a blank line"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["", "gz"])
def test_line_ends_and_packing_say_nothing(tmp_path: Path, content: bytes, packed: bool) -> None:
    path = tmp_path / ("x.jsonl.gz" if packed else "x.jsonl")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_records(path, Prompt) == [ASKED, ASKED]


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        (b'{"prompt": []}', ":2: field 'split' is missing"),
        (b'{"prompt": 7, "split": "train"}', ":2: not a Prompt: 'int' object is not iterable"),
        (b"[1, 2]", ":2: a line must be a JSON object like {…}, not [1, 2]"),
        (b'{"prompt" []}', ":2: not JSON: Expecting ':' delimiter (column 11)"),
        (LINE[:-1], ":2: not JSON: Expecting ',' delimiter (column 67); the text ends too early: is the file complete?"),
        (
            b'{"split": "tra',
            ":2: not JSON: Unterminated string starting at (column 11); the text ends too early: is the file complete?",
        ),
        (b'{"split": NaN}', ":2: not JSON: NaN is not a number of JSON"),
        (b"[" * 100_000, ":2: not JSON: maximum recursion depth exceeded"),
        (b'{"a": "\xe9"}', ":2: not UTF-8 (byte 0xe9 at position 8 of the line): save the file as UTF-8"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, second: bytes, complaint: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(LINE + b"\n" + second)
    with pytest.raises(UserError) as caught:
        read_records(path, Prompt)
    assert str(caught.value).removeprefix(str(path)).startswith(complaint)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.jsonl: cannot be read \(No such file or directory\)$"):
        read_records(tmp_path / "x.jsonl", Prompt)
    with pytest.raises(UserError, match=r": is a folder; name a file in it$"):
        read_records(tmp_path, Prompt)


def test_a_broken_gzip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(LINE * 9)[:-9])
    with pytest.raises(UserError, match=r"x\.jsonl\.gz: broken gzip file after line 0 \(.+\); copy or download it again$"):
        read_records(path, Prompt)


@pytest.mark.parametrize(("name", "packed"), [("x.jsonl", True), ("x.jsonl.gz", False)])
def test_its_bytes_say_whether_a_file_is_packed(tmp_path: Path, name: str, packed: bool) -> None:
    text = (LINE + b"\n") * 9
    (tmp_path / name).write_bytes(gzip.compress(text) if packed else text)
    assert len(read_records(tmp_path / name, Prompt)) == 9


@pytest.mark.parametrize("row", ['{"texts": "a"}', '{"text": null}'])
def test_a_document_without_text_is_named(tmp_path: Path, row: str) -> None:
    (tmp_path / "x.jsonl").write_text(row)
    with pytest.raises(UserError, match=r"x\.jsonl:1: field 'text' must be text, not null$"):
        read_documents(tmp_path / "x.jsonl")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_number_is_no_json(tmp_path: Path, number: float) -> None:
    class Odd:
        def to_row(self) -> dict[str, Any]:
            return {"score": number}

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_records(tmp_path / "x.jsonl", [Odd()])


def test_broken_json_is_named_with_its_line() -> None:
    with pytest.raises(UserError, match=r"x\.json:3: not JSON: Expecting property name .* \(column 3\)$"):
        parse_json(Path("x.json"), '{\n  "a": 1,\n  b: 2\n}\n')
