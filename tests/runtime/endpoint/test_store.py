"""An answer is found again by its question's key, whole, or it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.errors import UserError
from rlhf.runtime.endpoint.store import Answer, Store, store_of

ANSWER = Answer("理由……\nA", 12, 3, finish_reason="length")


def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache" / "judge")
    assert store.find("k") is None
    store.keep("k", ANSWER)
    assert store.find("k") == ANSWER
    assert store.find("other") is None
    assert [path.name for path in store.folder.iterdir()] == ["k.json"]


def test_a_refusal_is_not_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep("k", Answer(None, refusal="status 400"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", [b"", b'{"text": "A", "pro', b"[]", b'{"text": null}', b'{"words": "A"}', b"\xff\xfe", b"[" * 200_000]
)
def test_a_file_that_cannot_be_read_is_not_there(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    (tmp_path / "k.json").write_bytes(content)
    assert store.find("k") is None
    store.keep("k", ANSWER)
    assert store.find("k") == ANSWER


def test_where_a_file_cannot_be_it_is_not_there_and_what_was_answered_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "k.json").mkdir()
    assert store.find("k") is None
    with pytest.raises(
        UserError, match=r"k\.json: the judge's answer cannot be written \(Is a directory\): .*RLHF_JUDGE_CACHE"
    ):
        store.keep("k", ANSWER)
    assert [path.name for path in tmp_path.iterdir()] == ["k.json"]
    (tmp_path / "file").touch()
    assert Store(tmp_path / "file").find("k") is None
    with pytest.raises(UserError, match=r"cannot be written \(File exists\)"):
        Store(tmp_path / "file").keep("k", ANSWER)


def test_the_environment_may_name_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLHF_JUDGE_CACHE", raising=False)
    assert store_of(tmp_path).folder == tmp_path / "cache" / "judge"
    monkeypatch.setenv("RLHF_JUDGE_CACHE", str(tmp_path / "shared"))
    assert store_of(tmp_path).folder == tmp_path / "shared"
