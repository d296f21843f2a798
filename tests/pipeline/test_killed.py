"""A stage that was killed, and started again as a user would: it goes on, and leaves what it would have left."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests.helpers import assert_near
from tests.pipeline.clone import Clone, Done, contents
from tests.pipeline.conftest import SMOKE

LONGER = ("ppo.stop.steps=6", "ppo.eval_every_steps=1", "ppo.keep_every=2", "ppo.keep_best_by=validation_score")
OFTEN = "checkpoint.every_minutes=1e-6"  # after every step


def kill_after(clone: Clone, step: int, *command: str) -> int:
    """SIGKILL to one process of the command's, the one that writes, once it has saved its state after so many steps; the
    command's exit code."""
    with subprocess.Popen(
        command,
        cwd=clone.root,
        env=clone.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if f"has saved its state after step {step}:" in line:
                os.kill(writer_below(process.pid), signal.SIGKILL)
                break
        else:
            pytest.fail("".join(said))
        began = time.monotonic()
        process.stdout.read()
        code = process.wait()
        assert time.monotonic() - began < 15
        return code


def writer_below(pid: int) -> int:
    """The process itself, or the rank 0 that it started."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and session_of(entry) == pid:
            environment = (entry / "environ").read_bytes().split(b"\0")
            if b"RANK=0" in environment and b"stages/" in (entry / "cmdline").read_bytes():
                return int(entry.name)
    return pid


def went_on_from(done: Done, stage: str) -> int:
    """The step of the state: of the one before the kill, or of one that was saved until it came."""
    found = re.search(rf"^{stage} goes on from cache/checkpoints/{stage}-\w+/step_(\d+)", done.stdout, re.MULTILINE)
    assert found, done.stdout
    return int(found[1])


def session_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[3])
    except OSError:  # it has ended
        return 0


def curve(folder: Path) -> list[dict[str, str]]:
    with (folder / "curve.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_killed_run_of_ppo_goes_on_and_leaves_the_same_bytes(copy: Clone) -> None:
    copy.stage("ppo", SMOKE, *LONGER, "checkpoint.every_minutes=0", "hydra.run.dir=runs/whole")
    command = ("python", "stages/ppo.py", SMOKE, *LONGER, OFTEN)
    assert kill_after(copy, 3, *command, "hydra.run.dir=runs/killed") == -signal.SIGKILL
    again = copy.run(*command, "hydra.run.dir=runs/again")
    assert 3 <= went_on_from(again, "ppo") < 6
    left = {
        name: digest for name, digest in contents(copy.root / "runs" / "again").items() if not name.startswith(".hydra/")
    }
    expected = contents(copy.root / "runs" / "whole")
    assert left == {name: digest for name, digest in expected.items() if not name.startswith(".hydra/")}
    assert "snapshots/step_0002/model.safetensors" in left
    assert not list((copy.root / "cache" / "checkpoints").glob("ppo-*"))


def test_dvc_goes_on_where_it_was_killed(copy: Clone) -> None:
    """It empties the stage's folder first; the same settings and inputs find the state."""
    few = (SMOKE, "sft.epochs=4", "sft.lr=0.003")  # 52 steps: seconds are left when it is killed
    copy.stage("sft", *few, "hydra.run.dir=runs/whole")
    command = ("exp", "run", *(word for setting in (*few, OFTEN) for word in ("-S", setting)), "sft")
    assert kill_after(copy, 3, "dvc", *command) != 0
    again = copy.dvc(*command)
    assert again.ran[-1] == "sft"
    assert went_on_from(again, "sft") >= 3
    for name in ("model/model.safetensors", "metrics.json", "curve.csv"):
        assert copy.artifact("sft", name).read_bytes() == (copy.root / "runs" / "whole" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "others"), [("zero2", "engine=zero2"), ("zero3", "engine=zero3"), ("zero2", "engine=single")]
)
def test_a_killed_process_of_two_ends_the_run_which_two_or_one_go_on_with(copy: Clone, engine: str, others: str) -> None:
    of_two = (f"engine={engine}", "engine.processes=2")
    again_with = (others, f"engine.processes={1 if others == 'engine=single' else 2}")
    few = ("sft.epochs=1", "optimizer.eps=1e-4", "sft.lr=1e-3", OFTEN)
    copy.stage("sft", SMOKE, *few, *of_two, "hydra.run.dir=runs/whole")
    assert kill_after(copy, 2, "python", "stages/sft.py", SMOKE, *few, *of_two, "hydra.run.dir=runs/killed") != 0
    again = copy.stage("sft", SMOKE, *few, *again_with, "hydra.run.dir=runs/again")
    step = went_on_from(again, "sft")
    assert step >= 2
    whole, resumed = copy.root / "runs" / "whole", copy.root / "runs" / "again"
    if of_two == again_with:
        assert contents(resumed / "model") == contents(whole / "model")
        assert curve(resumed) == curve(whole)
        return
    assert "engine.processes 2 (now 1): last digits are those of neither" in again.stdout
    ours, theirs = curve(resumed), curve(whole)
    assert ours[:step] == theirs[:step], "those are the two processes'"
    for row, expected in zip(ours, theirs, strict=True):
        assert_near([float(row[name] or 0) for name in expected], [float(x or 0) for x in expected.values()], 1e-4)
    models = [AutoModelForCausalLM.from_pretrained(folder / "model").state_dict() for folder in (resumed, whole)]
    assert max(float((models[0][name] - models[1][name]).abs().max()) for name in models[1]) < 1e-4
