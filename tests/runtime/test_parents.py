"""Who ends with whom."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from tests.runtime.launched import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")

WORK = """
import sys, time
from rlhf.runtime import parents, processes
def work(how, seconds):
    try:
        parents.end_with_parent() if how == "hears" else processes.hear_sigterm()
        print("works", flush=True)
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            time.sleep(0.02)
            parents.leave_if_orphaned() if how != "hears" else None
        print("was not told", flush=True)
    finally:
        time.sleep(1)
        print("closed its books", flush=True)
    return 0
sys.exit(processes.attempt("sft", lambda: work(*sys.argv[1:])))
"""
DVC = "import subprocess, sys; subprocess.run(sys.argv[1], shell=True)"  # as DVC runs a stage
GONE = "DVC or torchrun, which has started this, was gone before it began\n"
ENDED = "closed its books\nsft: stopped by SIGTERM\n"


@contextmanager
def begun(folder: Path, *command: str) -> Iterator[tuple[subprocess.Popen[str], TextIO]]:
    """A command, when the work that it starts has begun; and what is said from then on."""
    with subprocess.Popen(
        command,
        env=environment(folder) | {"DVC_STAGE": "sft"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "works\n"
        yield process, process.stdout


def work(folder: Path, how: str, seconds: int = 60) -> str:
    """The work as a command. how: it hears of its parent's end, or looks."""
    script = folder / "流水线.py"
    script.write_text(WORK, encoding="utf-8")
    return shlex.join([sys.executable, "-W", "ignore", str(script), how, str(seconds)])


@pytest.mark.parametrize("how", ["hears", "looks"])
@pytest.mark.parametrize("command", ["exec {}", "{}; true", "sh -c {}'; true'; true", "./步骤步骤步骤.sh; true"])
def test_what_dvc_has_started_ends_with_it_whatever_shells_are_between(tmp_path: Path, command: str, how: str) -> None:
    """A name is cut after 15 bytes, and so within a character."""
    inner = work(tmp_path, how)
    script = tmp_path / "步骤步骤步骤.sh"
    script.write_text(f"#!/bin/sh\n{inner}\ntrue\n", encoding="utf-8")
    script.chmod(0o755)
    command = command.replace("./", f"{tmp_path}/").format(shlex.quote(inner) if "sh -c" in command else inner)
    with begun(tmp_path, sys.executable, "-c", DVC, command) as (dvc, said):
        dvc.kill()
        assert said.read() == ENDED


@pytest.mark.parametrize("how", ["hears", "looks"])
def test_a_signal_to_all_closes_the_books_once(tmp_path: Path, how: str) -> None:
    """As `systemctl stop` sends it: to the work, and to those whose end it hears of."""
    with begun(tmp_path, sys.executable, "-c", DVC, f"{work(tmp_path, how)}; true") as (dvc, said):
        os.killpg(dvc.pid, signal.SIGTERM)
        assert said.read() == ENDED


@pytest.mark.parametrize("how", ["hears", "looks"])
def test_dvc_may_outlive_the_shell_that_has_started_it(tmp_path: Path, how: str) -> None:
    command = shlex.join([sys.executable, "-c", DVC, f"{work(tmp_path, how, 2)}; true"])
    with begun(tmp_path, "sh", "-c", f"{command}; true") as (shell, said):
        shell.kill()
        assert said.read() == "was not told\nclosed its books\n"


def test_a_signal_that_comes_twice_for_one_asking_closes_the_books_once(tmp_path: Path) -> None:
    """As SLURM sends it, and the kernel for the parent that SLURM has ended as well."""
    with begun(tmp_path, *shlex.split(work(tmp_path, "looks"))) as (process, said):
        for _ in range(2):
            process.terminate()
            time.sleep(0.3)
        assert said.read() == ENDED


LATE = """
import sys, time
from pathlib import Path
from rlhf.runtime import parents, processes
def work():
    print("works", flush=True)
    while not Path(sys.argv[1]).exists():
        time.sleep(0.02)
    parents.end_with_parent()
    return 0
sys.exit(processes.attempt("sft", work))
"""


def test_who_is_left_between_its_import_and_its_first_line_ends_at_once(tmp_path: Path) -> None:
    go_on = tmp_path / "go_on"
    command = shlex.join([sys.executable, "-W", "ignore", "-c", LATE, str(go_on)])
    with begun(tmp_path, sys.executable, "-c", DVC, f"exec {command}") as (dvc, said):
        dvc.kill()
        dvc.wait()
        go_on.touch()
        assert said.read() == GONE + "sft: stopped by SIGTERM\n"


OUT_OF_FILES = """
import os, resource, sys
from rlhf.runtime import parents
assert len(parents.ANCESTORS) > 1
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
sys.exit(1 if parents.is_orphaned() else 0)
"""


def test_who_can_open_no_more_files_is_no_orphan(tmp_path: Path) -> None:
    command = f"{shlex.join([sys.executable, '-W', 'ignore', '-c', OUT_OF_FILES])}; exit $?"
    done = subprocess.run(
        ["sh", "-c", command], env=environment(tmp_path) | {"DVC_STAGE": "sft"}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
