"""A run that was stopped goes on from its own state, and from nobody else's."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf.models.batching import Batching
from rlhf.runtime import parents, processes
from rlhf.runtime.checkpoint import PLACE, checkpoints_of, store
from rlhf.runtime.checkpoint.identity import Origin, code_of
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
    "optimizer.bits": 32,
    "engine.name": "single",
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


def origin(root: Path, **changes: Any) -> Origin:
    return Origin(root, "sft", DECLARED, VALUES | changes, {"torch": "2"}, code_of(root, DECLARED))


def start(root: Path, output: str, **changes: Any) -> tuple[Run, LoopState]:
    folder = root / output
    folder.mkdir(exist_ok=True)
    kept = checkpoints_of(origin(root, **changes), folder, "sft")
    run = Run("sft", None, folder, None, root, Tracker({}, None, 0.0), checkpoints=kept)  # type: ignore[arg-type]
    return run, LoopState(engine_for(make_policy("llama")))


def learn(run: Run, state: LoopState, stop: int | None = None, each: Callable[[int], None] = lambda step: None) -> None:
    """To the end, or until the step after `stop`: a state is saved when the next row is asked for. A run that stops lets go
    of its states, as one does that dies."""
    for row in run.follow(train_sft(state, EXAMPLES, EXAMPLES[:2], PASSES, Batching(PAD, 20)), 6, state):
        each(int(row["step"]))
        if row["step"] == (stop or 0) + 1 and stop:
            break
    let_go(run)


def let_go(run: Run) -> None:
    if run.checkpoints:
        run.checkpoints.let_go()


def folder_of(run: Run) -> Path:
    assert run.checkpoints
    assert run.checkpoints.folder
    return run.checkpoints.folder


def test_a_stopped_run_goes_on_to_the_same_rows_weights_and_files(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, expected = start(root, "whole", **{"checkpoint.every_minutes": 1e9})
    learn(whole, expected)
    assert not list((root / PLACE).glob("sft-*"))

    first, state = start(root, "first")
    for name in ("sft.log", ".hydra", "job.json"):
        (first.output / name).write_text("not the run's")

    def write(step: int) -> None:
        (first.output / "samples.md").write_text(f"after {step}")
        if step == 2:
            (first.output / "snapshots" / "step_2").mkdir(parents=True)
            (first.output / "snapshots" / "step_2" / "model").write_text("as it was")

    learn(first, state, stop=4, each=write)
    assert sorted(path.name for path in folder_of(first).iterdir()) == ["step_000000003", "step_000000004"]
    assert "sft has saved its state after step 4: cache/checkpoints/sft-" in capsys.readouterr().out

    again, fresh = start(root, "again")
    seen: list[int] = []
    learn(again, fresh, each=seen.append)
    assert seen == [5, 6]
    assert again.rows == whole.rows
    assert (again.output / "curve.csv").read_bytes() == (whole.output / "curve.csv").read_bytes()
    assert torch.equal(weights(fresh.engine.model), weights(expected.engine.model))
    assert (again.output / "snapshots" / "step_2" / "model").read_text() == "as it was"
    assert (again.output / "samples.md").read_text() == "after 4"
    assert {path.name for path in again.output.iterdir()} == {"snapshots", "samples.md", "curve.csv"}
    assert "sft goes on from cache/checkpoints/sft-" in (said := capsys.readouterr().out)
    assert "last digits" not in said


def test_what_a_run_has_written_lives_through_two_stops_in_one_folder(root: Path) -> None:
    def write(step: int) -> None:
        (root / "same" / f"after_{step}").write_text("")
        (root / "same" / "snapshots" / f"step_{step}").mkdir(parents=True)
        (root / "same" / "snapshots" / f"step_{step}" / "model").write_text(f"after {step}")

    for stop in (2, 4):
        learn(*start(root, "same"), stop=stop, each=write)
    shutil.rmtree(root / "same")
    learn(*start(root, "same"), each=write)
    assert sorted(path.name for path in (root / "same").glob("after_*")) == [f"after_{step}" for step in range(1, 7)]
    assert sorted(path.read_text() for path in root.glob("same/snapshots/*/model")) == [f"after {n}" for n in range(1, 7)]


def test_a_run_that_had_made_its_last_step_has_only_to_be_finished(root: Path) -> None:
    run, state = start(root, "first")
    learn(run, state)
    again, fresh = start(root, "again")
    last = again.follow_to_end(train_sft(fresh, EXAMPLES, EXAMPLES[:2], PASSES, Batching(PAD, 20)), 6, fresh)
    assert last == run.rows[-1]
    assert torch.equal(weights(fresh.engine.model), weights(state.engine.model))
    assert again.checkpoints
    again.checkpoints.remove()
    assert not folder_of(again).exists()


def test_only_what_moves_rounding_alone_may_differ(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_run = origin(root).name()
    assert origin(root).name() == of_run
    for name in ("sft.lr", "sft.epochs", "engine.dtype"):
        assert origin(root, **{name: "other"}).name() != of_run, name
    for name in ("ppo.lr", "checkpoint.every_minutes", "engine.processes", "engine.tokens_per_micro_batch"):
        assert origin(root, **{name: 3}).name() == of_run, name
    for name in ("src/code.py", "artifacts/base/model/weights", "data/raw.txt"):
        before = (root / name).read_text()
        (root / name).write_text("changed")
        assert origin(root).name() != of_run, name
        (root / name).write_text(before)
    learn(*start(root, "a"), stop=3)
    capsys.readouterr()
    learn(*start(root, "b", **{"engine.tokens_per_micro_batch": 50}), stop=4)
    said = capsys.readouterr().out
    assert "made with engine.tokens_per_micro_batch 100 (now 50): last digits are those of neither" in said


def test_none_are_kept_where_none_are_wanted_or_nobody_says_what_a_stage_depends_on(root: Path) -> None:
    assert checkpoints_of(origin(root, **{"checkpoint.every_minutes": 0.0}), root, "sft") is None
    assert checkpoints_of(Origin(root, "sft", Declared(), VALUES, {}, {}), root, "sft") is None


def test_one_run_has_the_states_and_another_of_the_same_leaves_them_alone(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, state = start(root, "first")
    rows = first.follow(train_sft(state, EXAMPLES, EXAMPLES[:2], PASSES, Batching(PAD, 20)), 6, state)
    for _ in range(3):
        next(rows)
    before = sorted(folder_of(first).rglob("*"))
    second, fresh = start(root, "second")
    learn(second, fresh)
    assert second.checkpoints
    second.checkpoints.remove()
    assert f"sft saves no state: process {os.getpid()} is at the same run" in capsys.readouterr().out
    assert len(second.rows) == 6
    assert sorted(folder_of(first).rglob("*")) == before
    list(rows)
    assert first.rows == second.rows
    let_go(first)


@pytest.mark.parametrize("name", ["state.pt", "rows.json", "manifest.json", "files/samples.md"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_state_is_passed_over_for_the_one_before(
    root: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, state = start(root, "a")
    learn(run, state, stop=4, each=lambda step: (run.output / "samples.md").write_text(f"after {step}") and None)
    file = folder_of(run) / "step_000000004" / name
    content = bytearray(file.read_bytes())
    match damage:
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "flipped":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        case "gone":
            file.unlink()
    again, fresh = start(root, "b")
    learn(again, fresh)
    said = capsys.readouterr().out
    assert "sft passes over cache/checkpoints/sft-" in said
    assert "step_000000004, which is damaged" in said
    assert "step_000000003\n" in said
    whole, expected = start(root, "whole", **{"sft.lr": 0.1, "checkpoint.every_minutes": 0.0})
    learn(whole, expected)
    assert again.rows == whole.rows
    assert torch.equal(weights(fresh.engine.model), weights(expected.engine.model))


def test_a_disk_without_room_costs_a_word_and_no_training(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit on files stands in for a disk: what torch does where it cannot write on is its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    run, state = start(root, "a")
    try:
        learn(run, state, each=lambda step: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard)) if step == 3 else None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().out
    assert "sft cannot save its state: " in said
    assert "GiB are free in cache/checkpoints" in said
    assert len(run.rows) == 6
    assert sorted(path.name for path in folder_of(run).iterdir()) == ["step_000000001", "step_000000002"]


def test_new_states_take_the_places_of_damaged_ones_of_later_steps(root: Path) -> None:
    run, state = start(root, "a")
    learn(run, state, stop=5)
    for file in folder_of(run).glob("*/state.pt"):
        file.write_bytes(b"")
    again, fresh = start(root, "b")
    learn(again, fresh, stop=2)
    assert again.rows[:2] == run.rows[:2]
    assert sorted(path.name for path in folder_of(run).iterdir()) == ["step_000000001", "step_000000002"]


def test_code_that_is_edited_meanwhile_does_not_count(root: Path) -> None:
    before = origin(root)
    (root / "src/code.py").write_text("edited when it had been imported")
    assert before.name() != origin(root).name()


def test_a_place_that_cannot_be_written_costs_a_word(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "cache").write_text("a file")
    run, state = start(root, "a")
    learn(run, state)
    assert "sft saves no state: cache/checkpoints cannot be written" in capsys.readouterr().out
    assert len(run.rows) == 6


def test_what_was_half_written_goes(root: Path) -> None:
    run, state = start(root, "a")
    learn(run, state, stop=3)
    half = folder_of(run) / f"{store.HALF}1"
    (half / "files").mkdir(parents=True)
    learn(*start(root, "b"), stop=4)
    assert not half.exists()


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals as a stage hears them, and not as a background job does."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    processes.hear_sigterm()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, hearer in before.items():
        signal.signal(number, hearer)


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, processes.Terminated)])
def test_who_asks_to_stop_has_the_state_saved_first(
    root: Path, heard: None, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[BaseException]
) -> None:
    def ask(times: int, at: int) -> Callable[[int], None]:
        return lambda step: [os.kill(os.getpid(), number) for _ in range(times)] and None if step == at else None

    seldom = {"checkpoint.every_minutes": 1e9}
    run, state = start(root, "a", **seldom)
    with pytest.raises(kind):
        learn(run, state, each=ask(2, at=3))  # by the terminal, and by way of a launcher
    let_go(run)
    assert [path.name for path in folder_of(run).iterdir()] == ["step_000000003"]
    assert len(run.rows) == 3
    monkeypatch.setattr(processes, "SECONDS_OF_ONE_ASKING", 0.0)
    twice, state = start(root, "b", **seldom)
    with pytest.raises(kind):
        learn(twice, state, each=ask(2, at=5))
    let_go(twice)
    assert [path.name for path in folder_of(run).iterdir()] == ["step_000000003"], "asked twice, it saved all the same"
    assert signal.getsignal(signal.SIGTERM) is processes.raise_terminated


def test_what_dvc_or_torchrun_has_started_is_saved_when_that_has_died(
    root: Path, heard: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, state = start(root, "a", **{"checkpoint.every_minutes": 1e9})
    monkeypatch.setenv("DVC_STAGE", "sft")
    with pytest.raises(processes.Terminated):
        learn(run, state, each=lambda step: monkeypatch.setattr(parents, "ANCESTORS", (-1,)) if step == 4 else None)
    assert [path.name for path in folder_of(run).iterdir()] == ["step_000000004"]


def test_who_asks_behind_the_last_step_is_heard(root: Path, heard: None) -> None:
    run, state = start(root, "a", **{"checkpoint.every_minutes": 1e9})

    def rows() -> Iterator[store.Row]:
        yield from train_sft(state, EXAMPLES, EXAMPLES[:2], PASSES, Batching(PAD, 20))
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(processes.Terminated):
        run.follow_to_end(rows(), 6, state)
    assert len(run.rows) == 6


def test_a_state_is_saved_once_when_it_is_time(root: Path) -> None:
    run, state = start(root, "a", **{"checkpoint.every_minutes": 1e3})
    assert run.checkpoints

    def pass_time(step: int) -> None:
        assert run.checkpoints
        run.checkpoints.saved -= 61e3 if step == 2 else 0.0

    learn(run, state, stop=4, each=pass_time)
    assert [path.name for path in folder_of(run).iterdir()] == ["step_000000002"]


def test_moments_of_eight_bits_in_parts_are_not_saved_and_it_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learn(*start(root, "a", **{"optimizer.bits": 8, "engine.name": "zero2"}))
    assert "sft saves no state on its way: moments of 8 bits" in capsys.readouterr().out
    assert not (root / PLACE).exists()
    learn(*start(root, "b", **{"optimizer.bits": 8}))
    assert list((root / PLACE).glob("sft-*"))


def test_rows_survive_as_they_are(root: Path) -> None:
    run, state = start(root, "a")
    learn(run, state, stop=3)
    saved = store.newest(folder_of(run), print)
    assert saved
    assert saved.rows == run.rows[:3] == json.loads(json.dumps(run.rows[:3]))


KILLED = """
import os, signal, sys
import torch
from pathlib import Path
from rlhf.runtime.checkpoint import store
torch.manual_seed(0)
folder, output = Path(sys.argv[1]), Path(sys.argv[2])
for step in range(1, 10_000):
    store.write(folder, {"weights": torch.full((200_000,), float(step))}, [{"step": step}], {}, output)
    print(step, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(20))
def test_killed_at_any_moment_of_a_save_it_leaves_the_last_state_or_the_one_before(tmp_path: Path, moment: int) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / "samples.md").write_text("x" * 100_000)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "states"), str(output)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": "src"}, cwd=ROOT
    ) as process:
        assert process.stdout
        for _ in range(3):
            process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.0013 * moment)
        process.kill()
        told = int(([*process.stdout.read().split(), "3"])[-1]) if moment else 3
    saved = store.newest(tmp_path / "states", print)
    assert saved
    step = int(saved.folder.name.removeprefix(store.STEP))
    assert step >= told - 1
    assert float(torch.load(saved.folder / store.STATE, weights_only=True)["weights"][0]) == step
    assert not list((tmp_path / "states").glob(f"{store.HALF}*"))
