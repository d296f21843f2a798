"""A stage that was killed, and started again as a user would: it goes on, and leaves what it would have left."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from transformers import AutoModelForCausalLM

from tests.helpers import assert_near
from tests.pipeline.clone import Clone, Done, contents
from tests.pipeline.conftest import SMOKE

LONGER = ("ppo.stop.steps=6", "ppo.eval_every_steps=1", "ppo.keep_every=2", "ppo.keep_best_by=validation_score")
OFTEN = "checkpoint.every_minutes=1e-6"  # after every step
SHELLS = ("/bin/bash", "/bin/sh")  # DVC has a shell run the stage: the first gives way to it, Debian's second waits for it


def started(clone: Clone, *command: str, **environment: str) -> subprocess.Popen[str]:
    """A command in a session of its own, with all that it says in one pipe. It hears Ctrl-C even where the tests, a job in
    the background, do not."""
    return subprocess.Popen(
        command,
        cwd=clone.root,
        env=clone.environment() | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def kill_after(clone: Clone, step: int, *command: str, **environment: str) -> int:
    """SIGKILL to the one process of the command's that writes (for DVC: to itself), once its state is saved after so many
    steps; the command's exit code."""
    with started(clone, *command, **environment) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if f"has saved its state after step {step}:" in line:
                (writer,) = ranks_below(process.pid, 0) or [process.pid]
                os.kill(writer, signal.SIGKILL)
                break
        else:
            pytest.fail("".join(said))
        began = time.monotonic()
        process.stdout.read()
        code = process.wait()
        assert time.monotonic() - began < 15
        return code


def ask_after_a_while(clone: Clone, ask: Callable[[psutil.Process], None], *command: str, **environment: str) -> Done:
    """Starts a command whose stage saves no state of itself for long; asks it to stop once it has shown a step."""
    with started(clone, *command, **environment) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if re.match(r"sft \d+/", line):
                break
        ask(psutil.Process(process.pid))
        said.append(process.stdout.read())
        return Done("".join(said), "", process.wait())


def by_ctrl_c(first: psutil.Process) -> None:
    """As a terminal does: everybody in the group hears it."""
    os.killpg(first.pid, signal.SIGINT)


def by_slurm(first: psutil.Process) -> None:
    """As it ends a job's step: each of its processes hears it."""
    for process in [first, *first.children(recursive=True)]:
        process.terminate()


def of_rank_1(first: psutil.Process) -> None:
    """As an operator might: one of two that train together hears it, and not the one that writes."""
    (rank,) = ranks_below(first.pid, 1)
    os.kill(rank, signal.SIGTERM)


def ranks_below(pid: int, rank: int) -> list[int]:
    """The process of that rank which a stage has launched, in a session of its own, if it has launched any."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.environ().get("RANK") == str(rank) and any("stages/" in word for word in process.cmdline()):
                found.append(process.pid)
    return found


def went_on_from(done: Done, stage: str) -> int:
    """The step of the state: of the one before the kill, or of one that was saved until it came."""
    found = re.search(rf"^{stage} goes on from cache/checkpoints/{stage}-\w+/step_(\d+)", done.stdout, re.MULTILINE)
    assert found, done.stdout
    return int(found[1])


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
    ask = "import mlflow; print(mlflow.search_runs(order_by=['attributes.start_time DESC'])['tags.resumed_from_step'][0])"
    assert copy.run("python", "-c", ask).stdout.split()[-1] == str(went_on_from(again, "ppo"))


def test_dvc_goes_on_where_it_was_killed(copy: Clone) -> None:
    """It empties the stage's folder first; the same settings and inputs find the state."""
    few = (SMOKE, "sft.epochs=8", "sft.lr=0.003")  # 104 steps: seconds are left when it is killed
    copy.stage("sft", *few, "hydra.run.dir=runs/whole")
    command = ("exp", "run", *(word for setting in (*few, OFTEN) for word in ("-S", setting)), "sft")
    assert kill_after(copy, 3, "dvc", *command, SHELL=SHELLS[-1]) != 0
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
    assert kill_after(copy, 2, "python", "stages/sft.py", SMOKE, *few, *of_two, "hydra.run.dir=runs/killed") == 137
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


LONG = (SMOKE, "sft.epochs=40")


@pytest.mark.slow
@pytest.mark.parametrize(("ask", "code"), [(by_ctrl_c, 130), (by_slurm, 143), (of_rank_1, 143)])
def test_two_processes_that_are_asked_to_stop_save_their_state(
    copy: Clone, ask: Callable[[psutil.Process], None], code: int
) -> None:
    command = ("python", "stages/sft.py", *LONG, "engine=zero2", "engine.processes=2")
    done = ask_after_a_while(copy, ask, *command, "hydra.run.dir=runs/stopped")
    assert done.code == code, done.stdout
    saved = re.findall(r"sft has saved its state after step (\d+): ", done.stdout)
    assert len(saved) == 1, done.stdout
    assert "Traceback" not in done.stdout
    again = copy.stage("sft", *LONG, "hydra.run.dir=runs/stopped", *command[-2:])
    assert went_on_from(again, "sft") == int(saved[0])


@pytest.mark.slow
@pytest.mark.parametrize("shell", [shell for shell in SHELLS if Path(shell).exists()])
def test_the_stage_of_a_dvc_that_has_died_saves_its_state(copy: Clone, shell: str) -> None:
    command = ("dvc", "exp", "run", *(word for setting in LONG for word in ("-S", setting)), "sft")
    done = ask_after_a_while(copy, psutil.Process.kill, *command, SHELL=shell)
    saved = re.findall(r"sft has saved its state after step (\d+): ", done.stdout)
    assert len(saved) == 1, done.stdout
    assert went_on_from(copy.dvc(*command[1:]), "sft") == int(saved[0])
