"""`make verify`: same bytes, same figures within chance, or what differs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.errors import UserError
from rlhf.runtime import verify
from rlhf.runtime.hashes import md5_of
from tests.runtime.conftest import Repository


def test_an_md5_is_what_dvc_says(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--quiet"], cwd=tmp_path, check=True)
    folder = tmp_path / "folder"
    (folder / "b").mkdir(parents=True)
    for name, text in {"é.txt": "one", "b/c.txt": "two", "b.txt": "three", "empty": ""}.items():
        (folder / name).write_text(text)
    subprocess.run([*dvc, "add", "--quiet", "folder"], cwd=tmp_path, check=True)
    assert f"md5: {md5_of(folder)}\n" in (tmp_path / "folder.dvc").read_text()


def test_an_interval_is_students_for_one_more_run() -> None:
    found = verify.intervals([{"a": 1.0, "only here": 1.0}, {"a": 2.0}, {"a": 3.0}])
    # mean 2, s = 1, t(99 %, 2 degrees of freedom) = 9.925, times sqrt(1 + 1/3) = 1.1547
    assert found == {"a": {"low": pytest.approx(2 - 11.4604, abs=1e-3), "high": pytest.approx(2 + 11.4604, abs=1e-3)}}
    with pytest.raises(UserError, match="at least two runs"):
        verify.intervals([{"a": 1.0}])


def test_what_is_out_of_place_is_listed() -> None:
    reference = {"a": {"low": 0.0, "high": 1.0}, "b": {"low": 0.0, "high": 1.0}, "c": {"low": 2.0, "high": 2.0}}
    assert verify.out_of_place({"a": 0.5, "b": 1.5, "new": 7.0}, reference) == ["c: missing", "b: 1.5 is outside 0 … 1"]
    assert verify.out_of_place({"a": 0.0, "b": 1.0, "c": 2.0}, reference) == []


@pytest.fixture
def reproduced(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository whose lock is committed, and whose outputs are those of the lock."""
    output = repository.root / "artifacts" / "evaluate"
    output.mkdir(parents=True)
    (output / "metrics.json").write_text('{"sft": {"gold_score": 0.5}, "note": "a word"}')
    (repository.root / "params.yaml").write_text("seed: 0\n")
    lock = f"stages:\n  evaluate:\n    outs:\n    - {{path: artifacts/evaluate, md5: {md5_of(output)}, nfiles: 1}}\n"
    (repository.root / "dvc.lock").write_text(lock)
    repository.git("init", "--quiet")
    repository.git("add", "dvc.lock", "params.yaml")
    repository.git("commit", "--quiet", "--message", "lock")
    monkeypatch.chdir(repository.root)
    return repository


def test_the_same_bytes_are_all_that_is_asked_for(reproduced: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([]) == 0
    assert capsys.readouterr().out == "same bytes as the committed lock (1 files)\n"


def test_other_bytes_are_judged_by_the_figures(reproduced: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = reproduced.root / "artifacts" / "evaluate" / "metrics.json"
    (reproduced.root / "docs").mkdir()
    for seed, score in enumerate((0.5, 0.52, 0.48)):
        (reproduced.root / f"{seed}.json").write_text(json.dumps({"sft": {"gold_score": score}}))
    assert verify.main(["--reference", "0.json", "1.json", "2.json"]) == 0
    metrics.write_text('{"sft": {"gold_score": 0.51}}')
    assert verify.main([]) == 0
    assert "other bytes than in the committed lock: artifacts/evaluate" in capsys.readouterr().out
    metrics.write_text('{"sft": {"gold_score": 0.9}}')
    assert verify.main([]) == 1
    assert "sft/gold_score: 0.9 is outside" in capsys.readouterr().out


def test_what_was_not_made_or_cannot_be_judged_is_an_error(reproduced: Repository) -> None:
    metrics = reproduced.root / "artifacts" / "evaluate" / "metrics.json"
    metrics.write_text("{}")
    with pytest.raises(UserError, match=r"reference_metrics\.json is missing"):
        verify.main([])
    metrics.unlink()
    metrics.parent.rmdir()
    with pytest.raises(UserError, match="run `make reproduce` first"):
        verify.main([])
