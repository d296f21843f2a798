"""A run that was stopped goes on from its own state, and from nobody else's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.models.forward import Batching
from rlhf.runtime import settings
from rlhf.runtime.checkpoint import Checkpoints, checkpoints_of
from rlhf.runtime.pipeline import Declared
from rlhf.runtime.run import Run
from rlhf.runtime.tracking import Tracker
from rlhf.training.loop import LoopState, Passes
from rlhf.training.sft import train_sft
from tests.models.tiny_models import PAD, make_policy
from tests.training.by_loop import EXAMPLES
from tests.training.table import engine_for, weights

ROOT = Path(__file__).parents[2]
PASSES = Passes(epochs=3, rows_per_step=4, eval_every_steps=2, seed=7)  # 6 steps
VALUES = {
    "checkpoint.every_minutes": 1e-9,
    "sft.lr": 0.1,
    "sft.epochs": 2,
    "ppo.lr": 0.3,
    "engine.processes": 1,
    "engine.tokens_per_micro_batch": 100,
    "engine.dtype": "float32",
    "data.file": "data/raw.txt",
}
DECLARED = Declared(deps=("src/code.py", "artifacts/base/model", "${data.file}", "absent"), params=("sft", "engine"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("src/code.py", "artifacts/base/model/weights", "data/raw.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def checkpoints(root: Path, output: str, **changes: Any) -> Checkpoints:
    folder = root / output
    folder.mkdir(exist_ok=True)
    found = checkpoints_of(root, "sft", DECLARED, VALUES | changes, {"torch": "2"}, folder)
    assert found
    return found


def make_run(root: Path, kept: Checkpoints) -> Run:
    return Run("sft", None, kept.output, None, root, Tracker({}, None, 0.0), checkpoints=kept)  # type: ignore[arg-type]


def start(root: Path, output: str, **changes: Any) -> tuple[Run, LoopState]:
    return make_run(root, checkpoints(root, output, **changes)), LoopState(engine_for(make_policy("llama")))


def learn(run: Run, state: LoopState, stop: int | None = None, each: Callable[[int], None] = lambda step: None) -> None:
    """To the end, or until the step after `stop`: a state is saved when the next row is asked for."""
    for row in run.follow(train_sft(state, EXAMPLES, EXAMPLES[:2], PASSES, Batching(PAD, 20)), 6, state):
        each(int(row["step"]))
        if row["step"] == (stop or 0) + 1 and stop:
            return


def test_a_stopped_run_goes_on_to_the_same_rows_weights_and_files(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, expected = start(root, "whole", **{"checkpoint.every_minutes": 1e9})
    learn(whole, expected)
    assert not (root / "cache").exists()

    (root / "first").mkdir()
    (root / "first" / "there_before").write_text("not the run's")
    first, state = start(root, "first")
    written = first.output / "snapshots" / "step_2"

    def write(step: int) -> None:
        if step == 2:
            written.mkdir(parents=True)
            (written / "model").write_text("as it was")

    learn(first, state, stop=4, each=write)
    assert first.checkpoints
    assert [path.name for path in first.checkpoints.folder.iterdir()] == ["step_000000004"]
    assert "sft has saved its state after step 4: cache/checkpoints/sft-" in capsys.readouterr().out

    again, fresh = start(root, "again")
    seen: list[int] = []
    learn(again, fresh, each=seen.append)
    assert seen == [5, 6]
    assert again.rows == whole.rows
    assert (again.output / "curve.csv").read_bytes() == (whole.output / "curve.csv").read_bytes()
    assert torch.equal(weights(fresh.engine.model), weights(expected.engine.model))
    assert (again.output / "snapshots" / "step_2" / "model").read_text() == "as it was"
    assert not (again.output / "there_before").exists()
    assert "sft goes on from cache/checkpoints/sft-" in (said := capsys.readouterr().out)
    assert "last digits" not in said


def test_a_run_that_had_made_its_last_step_has_only_to_be_finished(root: Path) -> None:
    run, state = start(root, "first")
    learn(run, state)
    again, fresh = start(root, "again")
    last = again.follow_to_end(train_sft(fresh, EXAMPLES, EXAMPLES[:2], PASSES, Batching(PAD, 20)), 6, fresh)
    assert last == run.rows[-1]
    assert torch.equal(weights(fresh.engine.model), weights(state.engine.model))
    assert again.checkpoints
    again.checkpoints.remove()
    assert not again.checkpoints.folder.exists()


def test_only_what_moves_rounding_alone_may_differ(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_run = checkpoints(root, "a").folder
    assert checkpoints(root, "b").folder == of_run
    for name in ("sft.lr", "sft.epochs", "engine.dtype"):
        assert checkpoints(root, "a", **{name: "other"}).folder != of_run, name
    for name in ("ppo.lr", "checkpoint.every_minutes", "engine.processes", "engine.tokens_per_micro_batch"):
        assert checkpoints(root, "a", **{name: 3}).folder == of_run, name
    for name in ("src/code.py", "artifacts/base/model/weights", "data/raw.txt"):
        before = (root / name).read_text()
        (root / name).write_text("changed")
        assert checkpoints(root, "a").folder != of_run, name
        (root / name).write_text(before)
    learn(*start(root, "a"), stop=3)
    capsys.readouterr()
    learn(*start(root, "b", **{"engine.tokens_per_micro_batch": 50}), stop=4)
    said = capsys.readouterr().out
    assert "made with engine.tokens_per_micro_batch 100 (now 50): last digits are those of neither" in said


def test_none_are_kept_where_none_are_wanted_or_nobody_says_what_a_stage_depends_on(root: Path) -> None:
    never = VALUES | {"checkpoint.every_minutes": 0.0}
    assert checkpoints_of(root, "sft", DECLARED, never, {}, root) is None
    assert checkpoints_of(root, "sft", Declared(), VALUES, {}, root) is None


def test_what_was_being_written_is_no_state_and_a_broken_one_is_named(root: Path) -> None:
    run, state = start(root, "a")
    learn(run, state, stop=3)
    assert run.checkpoints
    (run.checkpoints.folder / ".half_1").mkdir()
    again, fresh = start(root, "b")
    learn(again, fresh, stop=4)
    assert [row["step"] for row in again.rows] == [1, 2, 3, 4, 5]
    (good,) = run.checkpoints.folder.glob("step_*")
    (good / "state.pt").write_bytes(b"cut off")
    with pytest.raises(UserError, match=rf"{good}: is no state to go on from \(.*\): remove it, and the run begins anew"):
        learn(*start(root, "c"))


def test_the_settings_refuse_what_cannot_be_saved_whole() -> None:
    values = settings.values_of(settings.compose(ROOT, ["engine=zero2", "optimizer.bits=8"]))
    with pytest.raises(
        UserError, match=r"checkpoint\.every_minutes \(15\) must be 0 with optimizer\.bits \(8\) and engine\.name"
    ):
        settings.validate(values)
    values["checkpoint"]["every_minutes"] = 0.0
    assert isinstance(settings.validate(values), Config)


def test_rows_survive_as_they_are(root: Path) -> None:
    run, state = start(root, "a")
    learn(run, state, stop=3)
    assert run.checkpoints
    (saved,) = run.checkpoints.folder.iterdir()
    assert json.loads((saved / "rows.json").read_text())["rows"] == run.rows[:3]
