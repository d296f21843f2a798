"""The files of launch/: shell that parses, and stages, settings and engines that there are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from rlhf.runtime import settings

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = ["slurm.sbatch", "torchrun.sh"]
PAGES = [LAUNCH / "slurm.sbatch", LAUNCH / "torchrun.sh", ROOT / "docs" / "cluster.md"]
COMMANDS = [(page.name, line.strip()) for page in PAGES for line in page.read_text().splitlines() if "stages/" in line]
NAMED = [(page, line) for page, line in COMMANDS if re.search(r"stages/[a-z]+\.py \w+=", line)]


@pytest.mark.parametrize("script", SCRIPTS)
def test_shell_parses_and_asks_for_a_stage(script: str) -> None:
    assert subprocess.run(["bash", "-n", LAUNCH / script], check=False).returncode == 0
    environment = {"PATH": "/usr/bin:/bin", "HEAD": "node1", "NODE": "0"}
    done = subprocess.run(["bash", LAUNCH / script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_a_machine_without_a_head_is_refused() -> None:
    done = subprocess.run(
        ["bash", LAUNCH / "torchrun.sh", "stages/ppo.py"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=False
    )
    assert done.returncode != 0
    assert b"HEAD" in done.stderr


def test_torchrun_is_told_of_all_machines_and_the_stage_of_all_processes(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HEAD": "node1", "NODE": "1", "NODES": "3", "PROCESSES": "4"}
    command = ["bash", str(LAUNCH / "torchrun.sh"), "stages/ppo.py", "engine=zero2"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert said[:2] == ["-m", "rlhf.runtime.launch"]
    del said[:2]
    options = dict(zip(said[:10:2], said[1:10:2], strict=True))
    assert options == {
        "--nnodes": "3", "--node_rank": "1", "--nproc_per_node": "4", "--master_addr": "node1", "--master_port": "29500"
    }  # fmt: skip
    assert said[10:] == ["stages/ppo.py", "engine=zero2", "engine.processes=12"]


def test_every_machine_of_the_hostfile_is_named_with_its_slots() -> None:
    lines = [line for line in (LAUNCH / "hostfile").read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert all(re.fullmatch(r"\S+ slots=[1-9]\d*", line) for line in lines)


def test_each_page_names_commands() -> None:
    assert {page for page, _ in NAMED} == {page.name for page in PAGES}


@pytest.mark.parametrize(("page", "line"), NAMED)
def test_stages_and_settings_that_are_named_exist(page: str, line: str) -> None:
    for script, tail in re.findall(r"(stages/[a-z]+\.py)((?: [\w./]+=[\w./]+)*)", line):
        assert (ROOT / script).is_file(), script
        ours = [text for text in tail.split() if not text.startswith("hydra")]
        settings.validate(settings.values_of(settings.compose(ROOT, ours)))
