"""`make verify`: same bytes, same figures within chance, or what differs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.errors import UserError
from rlhf.runtime import verify
from rlhf.runtime.hashes import md5_of
from rlhf.runtime.reference import read_reference
from tests.runtime.conftest import ROOT, Repository
from tests.runtime.runs import evaluation, model, write_run

OUTPUTS = ("artifacts/base", "artifacts/evaluate")


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


@pytest.fixture
def reproduced(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository whose lock is committed, and whose outputs are those of the lock; over three seeds, a reference."""
    root = write_run(repository.root, 0, evaluation())
    outs = [f"{{path: {path}, md5: {md5_of(root / path)}, nfiles: 1}}" for path in OUTPUTS]
    (root / "dvc.lock").write_text(f"stages:\n  all:\n    outs: [{', '.join(outs)}]\n")
    repository.git("init", "--quiet")
    repository.git("add", "dvc.lock", "params.yaml")
    repository.git("commit", "--quiet", "--message", "lock")
    monkeypatch.chdir(root)
    seeds = [
        write_run(root / "seeds" / str(seed), seed, evaluation(ppo=model(gold_score=score)), loss=0.4 + 0.01 * seed)
        for seed, score in enumerate((2.5, 2.52, 2.48))
    ]
    (root / "docs").mkdir()
    assert verify.main(["--reference", *map(str, seeds)]) == 0
    return repository


def test_the_same_bytes_are_all_that_is_asked_for(reproduced: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert verify.main([]) == 0
    assert capsys.readouterr().out == "same bytes as the committed lock (2 files)\n"


def test_other_bytes_are_judged_by_the_figures(reproduced: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(reproduced.root, 9, evaluation(ppo=model(gold_score=2.51)))
    assert verify.main([]) == 0
    said = capsys.readouterr().out
    assert "other bytes than in the committed lock: artifacts/base, artifacts/evaluate\n" in said
    assert "params.yaml is not the committed one" in said
    assert "all 6 headline figures are within their intervals over 3 seeds, and PPO and DPO beat SFT\n" in said
    write_run(reproduced.root, 9, evaluation(ppo=model(gold_score=-2.5)))
    assert verify.main([]) == 1
    assert "out of place:\n  artifacts/evaluate/metrics.json: ppo.gold_score is -2.5, outside " in capsys.readouterr().out


def test_the_headlines_share_one_chance_of_a_false_alarm(reproduced: Repository) -> None:
    """s is the floor of 0.0255: 9.925 times 1.1547 times that is 0.29, and at 1 − 0.01 / 6, where t is 24.5, 0.72."""
    write_run(reproduced.root, 0, evaluation(ppo=model(gold_score=2.5 + 0.7)))
    assert verify.main([]) == 0
    write_run(reproduced.root, 0, evaluation(ppo=model(gold_score=2.5 + 0.75)))
    assert verify.main([]) == 1


def test_a_figure_that_is_no_headline_is_told_of_and_not_judged(
    reproduced: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(reproduced.root, 0, evaluation(), loss=1.0)
    assert verify.main([]) == 0
    # 0.40, 0.41, 0.42: s = 0.01, times 11.46
    line = "artifacts/base/metrics.json: validation_loss is 1, outside 0.2954 … 0.5246 (mean of 3 seeds 0.41)"
    told = f"for information, not judged: 1 of 1 other figures out of place (about 0 would be by chance)\n  {line}\n"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("loser", ["ppo", "dpo"])
def test_without_the_effect_no_interval_helps(
    reproduced: Repository, capsys: pytest.CaptureFixture[str], loser: str
) -> None:
    write_run(reproduced.root, 0, evaluation(**{loser: model(win_rate=0.54)}))
    assert verify.main([]) == 1
    line = f"{loser}.win_rate.low is 0.49 (mean 0.54): {loser.upper()} must beat SFT, so it must be above 0.5"
    assert capsys.readouterr().out.endswith(f"  artifacts/evaluate/metrics.json: {line}\n")


def test_the_figures_of_other_settings_are_not_judged(reproduced: Repository) -> None:
    write_run(reproduced.root, 0, evaluation(ppo=model(gold_score=2.51)), settings="ppo: {lr: 0.2}")
    with pytest.raises(UserError, match=r"ppo\.lr: 0\.2 in params\.yaml, 0\.1 in docs/reference_metrics\.json"):
        verify.main([])


def test_what_was_not_made_or_cannot_be_judged_is_an_error(reproduced: Repository) -> None:
    metrics = reproduced.root / "artifacts" / "evaluate" / "metrics.json"
    metrics.write_text("{}")
    (reproduced.root / "docs" / "reference_metrics.json").unlink()
    with pytest.raises(UserError, match=r"reference_metrics\.json is missing"):
        verify.main([])
    metrics.unlink()
    metrics.parent.rmdir()
    with pytest.raises(UserError, match="artifacts/evaluate has not been made here: run `make reproduce` first"):
        verify.main([])


def test_the_committed_reference_can_be_read_and_judges_every_model() -> None:
    reference = read_reference(ROOT / verify.REFERENCE)
    assert len(reference.seeds) >= 3
    for name in ("base", "sft", "ppo", "dpo", "best_of_4"):
        assert f"evaluate.{name}.win_rate.mean" in reference.figures
