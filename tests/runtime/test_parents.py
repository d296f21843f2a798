"""Who ends with whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.launched import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")

WORK = """
import sys, time
from rlhf.runtime import parents, processes
def work():
    parents.end_with_parent()
    print("works", flush=True)
    for _ in range(200):
        time.sleep(0.1)
        parents.leave_if_orphaned() if sys.argv[1] == "looks" else None
    print("was not told", flush=True)
    return 0
sys.exit(processes.attempt("sft", work))
"""
STARTER = """
import subprocess, sys
subprocess.run(sys.argv[1], shell=True)
"""


@pytest.mark.parametrize("how", ["hears", "looks"])
@pytest.mark.parametrize("command", ["exec {}", "{}; true", "sh -c '{}; true'; true"])
def test_what_dvc_has_started_ends_with_it_and_shells_between_them_do_not_matter(
    tmp_path: Path, command: str, how: str
) -> None:
    script = tmp_path / "work.py"
    script.write_text(WORK, encoding="utf-8")
    command = command.format(f"{sys.executable} -W ignore {script} {how}")
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, command],
        env=environment(tmp_path) | {"DVC_STAGE": "sft"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "works\n"
        starter.kill()
        assert starter.stdout.read() == "sft: stopped by SIGTERM\n"


def test_a_shell_that_waits_for_its_command_may_lose_its_own_terminal(tmp_path: Path) -> None:
    """Only with the one that has started it does it end: DVC itself may go on without the shell of a user who has left."""
    script = tmp_path / "work.py"
    script.write_text(WORK.replace("range(200)", "range(15)"), encoding="utf-8")
    dvc = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    command = f"{sys.executable} -c '{dvc}' {sys.executable} -W ignore {script} hears; true"
    with subprocess.Popen(
        ["sh", "-c", command],
        env=environment(tmp_path) | {"DVC_STAGE": "sft"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "works\n"
        shell.kill()
        assert shell.stdout.read() == "was not told\n"
