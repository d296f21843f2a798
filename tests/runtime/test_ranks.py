"""Two processes beside one, over gloo: every loop under every stage of ZeRO learns the same from the same steps."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rlhf.errors import UserError
from rlhf.runtime import launch, ranks
from rlhf.runtime.engine.zero import _rounds
from tests.helpers import assert_near
from tests.runtime.launched import LAUNCHED, environment
from tests.training.table import all_settings, engine_settings, ppo_settings

ROOT = Path(__file__).parents[2]
LOOPS = ("sft", "adapters", "reward", "dpo", "ppo", "shared")
TORCHRUN = (sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
ONE = (sys.executable, "-W", "ignore", "-m")
MANY = (*TORCHRUN, "--module")


class Ended(NamedTuple):
    """What `ranks_run` left: by loop figures and weights; and the file, beside which the stopped states lie."""

    found: dict[str, Any]
    file: Path


def learn(folder: Path, command: tuple[str, ...], engine: str, dtype: str, *other: Path) -> Ended:
    file = folder / "found.json"
    done = subprocess.run(
        [*command, "tests.runtime.ranks_run", str(file), engine, dtype, *map(str, other)],
        cwd=ROOT,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Ended(dict(json.loads(file.read_text(encoding="utf-8"))), file)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ended]:
    """What one process of plain torch learns in a precision."""
    return cache(lambda dtype: learn(tmp_path_factory.mktemp("alone"), ONE, "single", dtype))


def assert_learned_the_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Figures and weights, after six steps of Adam, to what the order of sums in float32 leaves open."""
    assert [row.keys() for row in ours["rows"]] == [row.keys() for row in theirs["rows"]]
    assert len(ours["rows"]) >= 4
    for row, expected in zip(ours["rows"], theirs["rows"], strict=True):
        for name, value in expected.items():
            assert_near(row[name], value, 1e-5)
    assert ours["masters"].keys() == theirs["masters"].keys()
    for name, master in theirs["masters"].items():
        assert_near(ours["masters"][name], master, 1e-5)


def assert_goes_on(two: Ended) -> None:
    """Stopped in the middle, every loop goes on to the same bits."""
    for loop in LOOPS:
        assert two.found[f"{loop} resumed"] == two.found[loop]


def assert_as_one(two: Ended, one: Ended, back: Ended) -> None:
    """Two processes learn what one does, go on from where one has stopped, and the other way round. back: of one process
    that went on from where the two had stopped."""
    for loop in LOOPS:
        expected = one.found[loop]
        assert_learned_the_same(two.found[loop], expected)
        assert_near(two.found[loop]["weights"], expected["weights"], 1e-5)
        assert_learned_the_same(two.found[f"{loop} taken over"], expected)
        assert back.found[loop] == back.found[f"{loop} resumed"] == expected
        assert_learned_the_same(back.found[f"{loop} taken over"], expected)


def test_two_processes_learn_as_one_does_with_weights_in_parts(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, alone: Callable[[str], Ended]
) -> None:
    """ZeRO's third stage is the one in which everything has to meet."""
    one = alone("float32")
    two = learn(tmp_path, MANY, "zero3", "float32", one.file)
    assert_goes_on(two)
    assert_as_one(two, one, learn(tmp_path_factory.mktemp("back"), ONE, "single", "float32", two.file))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero0", "zero1", "zero2", "zero3_offload"])
def test_two_processes_learn_as_one_does(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, alone: Callable[[str], Ended], engine: str
) -> None:
    one = alone("float32")
    two = learn(tmp_path, MANY, engine, "float32", one.file)
    assert_goes_on(two)
    assert_as_one(two, one, learn(tmp_path_factory.mktemp("back"), ONE, "single", "float32", two.file))


@pytest.mark.slow
def test_three_processes_go_on_from_where_one_has_stopped(tmp_path: Path, alone: Callable[[str], Ended]) -> None:
    """Three divide neither the steps' rows nor the sizes of most weights."""
    one = alone("float32")
    three = learn(tmp_path, (*MANY[:-2], "--nproc_per_node=3", "--module"), "zero3", "float32", one.file)
    assert_goes_on(three)
    for loop in LOOPS:
        assert_learned_the_same(three.found[loop], one.found[loop])
        assert_learned_the_same(three.found[f"{loop} taken over"], one.found[loop])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero1", "zero2", "zero3", "zero3_offload"])
def test_two_processes_add_up_in_float32_what_they_compute_in_bfloat16(
    tmp_path: Path, alone: Callable[[str], Ended], engine: str
) -> None:
    """As one process does. Only the loops without a scalar head, which DeepSpeed rounds with the rest."""
    one = alone("bfloat16")
    two = learn(tmp_path, MANY, engine, "bfloat16", one.file)
    assert_goes_on(two)
    for loop in ("sft", "dpo"):
        assert_learned_the_same(two.found[loop], one.found[loop])
        assert_learned_the_same(two.found[f"{loop} taken over"], one.found[loop])


def test_what_processes_compute_at_the_same_time_is_of_one_kind_and_everything_once() -> None:
    parts = [1, 2, "a", 3, "b", 4, 5]
    rounds = list(_rounds(parts, 2))
    assert rounds == [[0, 1], [3, 5], [6], [2, 4]]
    assert list(_rounds(parts, 1)) == [[0], [1], [3], [5], [6], [2], [4]]


def test_one_process_does_all_and_asks_nobody() -> None:
    assert ranks.together([3, 1, 2], lambda item: item * 10) == [30, 10, 20]
    assert ranks.everybodys({1: "b", 0: "a"}) == ["a", "b"]
    assert (ranks.count(), ranks.rank()) == (1, 0)


@pytest.mark.parametrize(
    ("name", "processes", "stage", "launched", "starts"),
    [
        ("single", 1, "ppo", {}, False),
        ("zero2", 2, "ppo", {}, True),
        ("zero2", 1, "ppo", {}, False),
        ("zero2", 2, "prepare", {}, False),
        ("zero2", 2, "label", {}, False),
        ("zero2", 2, "ppo", {"RANK": "1", "WORLD_SIZE": "2"}, False),
        ("zero2", 8, "ppo", {"RANK": "0", "WORLD_SIZE": "8"}, False),
        ("zero2", 2, "label", {"RANK": "0", "WORLD_SIZE": "1"}, False),
    ],
)
def test_who_starts_others(
    name: str, processes: int, stage: str, launched: dict[str, str], starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in LAUNCHED:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in launched.items():
        monkeypatch.setenv(variable, value)
    settings = all_settings(ppo_settings()).model_copy(update={"engine": engine_settings(name=name, processes=processes)})
    assert launch.starts_others(settings, stage) is starts


def test_a_launcher_of_several_needs_an_engine_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"engine\.name \(single\) is one process, and the launcher has started 2"):
        launch.starts_others(all_settings(ppo_settings()), "ppo")
    with pytest.raises(UserError, match=r"runs in one process, and a launcher has started 2: python stages/label\.py"):
        launch.starts_others(all_settings(ppo_settings()), "label")
    two = all_settings(ppo_settings()).model_copy(update={"engine": engine_settings(name="zero2", processes=2)})
    for launched in ("8", "1"):
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", launched)
        with pytest.raises(UserError, match=rf"engine\.processes \(2\) is not what the launcher has started \({launched}, "):
            launch.starts_others(two, "ppo")
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match=r"WORLD_SIZE \(two\) must be a whole number"):
        launch.count()


def test_deepspeeds_launcher_may_add_its_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--local_rank=1", "ppo.kl_ctl=0.2"]
    assert launch.without_local_rank(arguments) == arguments
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launch.without_local_rank(arguments) == ["ppo.kl_ctl=0.2"]


KILLED = """
import os, sys, time
import torch
from rlhf.runtime import ranks
ranks.join(torch.device("cpu"))
os.write(1, f"PID {ranks.rank()} {os.getpid()}\\n".encode())  # a line at once, for the other writes there too
while True:
    ranks.everybodys({ranks.rank(): 1})
    time.sleep(0.05)
"""


def test_a_process_that_is_killed_ends_the_job(tmp_path: Path) -> None:
    """Within seconds and with an error, instead of leaving the others to wait for it."""
    script = tmp_path / "meet.py"
    script.write_text(KILLED, encoding="utf-8")
    job = subprocess.Popen(
        [*TORCHRUN, str(script)], env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert job.stdout is not None
        told = (line.split() for line in job.stdout if line.startswith("PID"))  # gloo says something there, too
        pids = {rank: int(pid) for _, rank, pid in itertools.islice(told, 2)}
        time.sleep(0.5)
        os.kill(pids["1"], signal.SIGKILL)
        assert job.wait(timeout=15) != 0
        with pytest.raises(ProcessLookupError):
            os.kill(pids["0"], 0)
    finally:
        job.kill()
