"""A JSON list read in pieces is the list read whole, wherever the pieces end; so is what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf.data import json_list as module
from rlhf.data.files import parse_json
from rlhf.data.json_list import json_list
from rlhf.errors import UserError

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)


@given(
    items=st.lists(VALUES, max_size=6),
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
    piece=st.integers(1, 9),
)
@UNHURRIED
def test_pieces_of_any_size_give_the_items_and_their_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, items: list[Any], indent: int | None, ascii_only: bool, piece: int
) -> None:
    monkeypatch.setattr(module, "PIECE", piece)
    text = json.dumps(items, indent=indent, ensure_ascii=ascii_only)
    (tmp_path / "x.json").write_bytes(text.encode())
    found = list(json_list(tmp_path / "x.json"))
    assert json.dumps([item for _, item in found]) == json.dumps(items)
    if indent is not None:
        below = [json.dumps(item, indent=indent).count("\n") + 1 for item in items]
        assert [line for line, _ in found] == [2 + sum(below[:i]) for i in range(len(items))]


@pytest.mark.parametrize("piece", [1, 3, 2**20])
@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1},\n {"a": 2}',
        '[{"a": 1},\n {"a": 2},',
        '[{"a": 1},\n {"a": "x',
        '[{"a": 1} {"a": 2}]',
        '[{"a": 1},\n\n  {"a" 2}]',
        '[{"a": 1},\n\n  {"a": 2, }, {"a": 3}]',
        '[{"a": 1}]\n\n x',
        '[{"a": "\u2028 \u00e4\u00f6", "b": 1\n 2}]',
    ],
)
def test_what_is_wrong_is_said_as_of_the_text_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, piece: int
) -> None:
    monkeypatch.setattr(module, "PIECE", piece)
    path = tmp_path / "x.json"
    path.write_bytes(text.encode())
    with pytest.raises(UserError) as whole:
        parse_json(path, text)
    with pytest.raises(UserError) as in_pieces:
        list(json_list(path))
    said, place = str(in_pieces.value), str(whole.value)
    assert said == place or ("Expecting" in said and said.split(": not JSON")[0] == place.split(": not JSON")[0])


@pytest.mark.parametrize("piece", [1, 4, 2**20])
@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b'[{"a": "\xff"}]', ":1: not UTF-8 (byte 0xff at position 9 of the line)"),
        ('[{"ä": 1},\n {"ä": "'.encode() + b'\xff"}]', ":2: not UTF-8 (byte 0xff at position 10 of the line)"),
        (b'[{"a": 1},\n\n {"a": "\xe4', ":3: not UTF-8 (byte 0xe4 at position 9 of the line)"),
    ],
)
def test_bytes_that_are_no_text_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, where: str, piece: int
) -> None:
    monkeypatch.setattr(module, "PIECE", piece)
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(json_list(tmp_path / "x.json"))
    assert str(caught.value).removeprefix(str(tmp_path / "x.json")).startswith(where)
