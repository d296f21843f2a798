"""What a command line asks for, before anything is written; and whose folder a sweep gets or goes on with."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from rlhf.errors import UserError
from rlhf.runtime.sweeps.ledger import open_sweep
from rlhf.runtime.sweeps.plan import Plan, plan
from tests.runtime.conftest import ROOT

DVC = """
stages:
  ppo:
    cmd: python stages/ppo.py
    deps: [artifacts/sft, stages/ppo.py]
    params: [seed, ppo, data.prompts]
"""
GRID = ("-m", "ppo.kl_ctl=0.05,0.1", "ppo.clip_range=0.1,0.2")
EXPERIMENT = """# @package _global_
hydra: {mode: MULTIRUN, sweeper: {params: {ppo.kl_ctl: "0.05,0.1", ppo.clip_range: "0.1,0.2"}}}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf" / "experiment" / "grid.yaml").write_text(EXPERIMENT)
    (tmp_path / "dvc.yaml").write_text(DVC)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "sft").write_text("a policy")
    return tmp_path


def planned(root: Path, *arguments: str) -> Plan:
    found = plan(root, "ppo", arguments)
    assert found is not None
    return found


def grid(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"ppo.kl_ctl": kl_ctl, "ppo.clip_range": clip_range} for kl_ctl, clip_range in pairs]


@pytest.mark.parametrize("arguments", [GRID, ("experiment=grid",), ("-m", "experiment=grid")])
def test_a_grid_is_a_job_for_each_pair_the_last_setting_fastest(root: Path, arguments: tuple[str, ...]) -> None:
    found = planned(root, *arguments)
    assert found.jobs == grid(("0.05", "0.1"), ("0.05", "0.2"), ("0.1", "0.1"), ("0.1", "0.2"))
    assert found.swept == {"ppo.kl_ctl": ["0.05", "0.1"], "ppo.clip_range": ["0.1", "0.2"]}
    assert found.settings["ppo.kl_ctl"] == "0.05, 0.1"
    assert "sweep.resume" not in found.settings
    assert re.fullmatch(r"sweeps/ppo/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", found.folder.relative_to(root).as_posix())
    assert (found.resumed, found.named) == (False, False)


@pytest.mark.parametrize(
    ("given", "jobs"),
    [
        ("ppo.kl_ctl=0.3", [{"ppo.clip_range": "0.1"}, {"ppo.clip_range": "0.2"}]),
        (
            "ppo.kl_ctl=0.3,0.4,0.3",
            grid(("0.3", "0.1"), ("0.3", "0.2"), ("0.4", "0.1"), ("0.4", "0.2"), ("0.3", "0.1"), ("0.3", "0.2")),
        ),
    ],
)
def test_a_value_on_the_command_line_wins_over_that_of_the_experiment(
    root: Path, given: str, jobs: list[dict[str, str]]
) -> None:
    assert planned(root, "experiment=grid", given).jobs == jobs


@pytest.mark.parametrize(
    ("swept", "values"),
    [
        ("seed=range(0,3)", ["0", "1", "2"]),
        ("seed=choice(3,1)", ["3", "1"]),
        ("ppo=grpo,rloo", ["grpo", "rloo"]),
        ("data.prompts=10,20", ["10", "20"]),
        ("data=world,files", ["world", "files"]),
        ("experiment=smoke,none", ["smoke", "none"]),
    ],
)
def test_whatever_the_stage_reads_can_be_swept(root: Path, swept: str, values: list[str]) -> None:
    assert list(planned(root, "-m", swept, *["data.path=x"] * swept.startswith("data=")).swept.values()) == [values]


def test_a_setting_without_a_default_can_be_swept(root: Path) -> None:
    (root / "dvc.yaml").unlink()
    assert planned(root, "-m", "data=files", "data.path=a.txt,b.txt").swept == {"data.path": ["a.txt", "b.txt"]}


@pytest.mark.parametrize(
    "arguments", [(), ("ppo.kl_ctl=0.1",), ("-m", "--help"), ("--hydra-help",), ("-m", "--cfg", "job"), ("--info",)]
)
def test_a_single_run_and_a_question_are_no_sweep(root: Path, arguments: tuple[str, ...]) -> None:
    assert plan(root, "ppo", arguments) is None


def test_the_command_can_be_given_to_a_shell_again(root: Path) -> None:
    found = planned(root, "-m", "ppo.kl_ctl=choice(0.1, 0.2)", "hydra.sweep.dir='a (new) sweep'", "sweep.resume=x")
    assert (
        found.command
        == """python stages/ppo.py -m 'ppo.kl_ctl=choice(0.1, 0.2)' 'hydra.sweep.dir='"'"'a (new) sweep'"'"''"""
    )


def test_a_folder_is_taken_as_it_was_written(root: Path) -> None:
    assert planned(root, *GRID, r"hydra.sweep.dir='a (new) sweep'").folder == root / "a (new) sweep"
    assert planned(root, *GRID, "hydra.sweep.dir=a sweep").folder == root / "a sweep"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m",), "nothing is swept: give a setting several values"),
        (("-m", "ppo.kl_ctl=0.1"), "nothing is swept"),
        (("-m", "ppo.kl_ctl=0.1,0.1"), "nothing is swept"),
        (("-m", "ppo.kl_ctl="), "nothing is swept"),
        (("-m", "ppo.kl_ctl=", "seed=1,2"), r"ppo\.kl_ctl \(\) must be a finite number"),
        (("-m", "ppo.kl_ctl=nan", "seed=1,2"), r"ppo\.kl_ctl \(nan\) must be a finite number"),
        (("-m", "ppo.kl_ctl=choice()"), "empty choice is not legal"),
        (("-m", "ppo.kl_ctl=interval(0,1)"), "has no end: give the values themselves"),
        (
            ("-m", "sft.lr=0.1,0.2"),
            r"sft\.lr is not read by ppo: all jobs would be the same; it reads seed, ppo, data\.prompts",
        ),
        (("-m", "sft=default", "sft.lr=0.1,0.2"), r"dvc exp run --queue -S 'sft\.lr=0\.1,0\.2'"),
        (("sweep.resume=x",), r"sweep\.resume is for a sweep: give its whole command again, with its -m"),
        (("-m", "data=files", "seed=1,2"), r"data\.path has no value"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_said_before_anything_is_written(
    root: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan(root, "ppo", arguments)


def test_sweeps_that_begin_in_the_same_second_have_folders_of_their_own(root: Path) -> None:
    one = planned(root, *GRID)
    folders = [open_sweep(root, one)[0].folder for _ in range(3)]
    assert [folder.name.removeprefix(one.folder.name) for folder in folders] == ["", "-2", "-3"]
    assert all(json.loads((folder / "sweep.json").read_text())["jobs"] == one.jobs for folder in folders)


@pytest.mark.parametrize("left", ["sweep.json", "notes.txt"])
def test_a_folder_that_was_named_and_is_taken_stays_as_it_is(root: Path, left: str) -> None:
    (root / "mine").mkdir()
    (root / "mine" / left).write_text("of somebody else")
    with pytest.raises(UserError, match=r"mine is taken: name another one, or go on .* by sweep\.resume=DIR"):
        open_sweep(root, planned(root, *GRID, "hydra.sweep.dir=mine"))
    assert [(path.name, path.read_text()) for path in (root / "mine").iterdir()] == [(left, "of somebody else")]


def test_a_folder_that_was_named_and_is_a_file_stays_as_it_is(root: Path) -> None:
    (root / "mine").write_text("of somebody else")
    with pytest.raises(UserError, match="mine is taken"):
        open_sweep(root, planned(root, *GRID, "hydra.sweep.dir=mine"))
    assert (root / "mine").read_text() == "of somebody else"


def test_an_empty_folder_that_was_named_belongs_to_the_first_who_comes(root: Path) -> None:
    (root / "mine").mkdir()
    mine = planned(root, *GRID, "hydra.sweep.dir=mine")
    assert open_sweep(root, mine)[0].folder == root / "mine"
    with pytest.raises(UserError, match="mine is taken"):
        open_sweep(root, mine)


def going_on(root: Path, *arguments: str, stage: str = "ppo") -> Plan:
    found = plan(root, stage, [*arguments, "sweep.resume=old"])
    assert found is not None
    return found


@pytest.fixture
def old(root: Path) -> Path:
    """The sweep.json of a sweep whose first job is done, the second failed, and the third was stopped."""
    open_sweep(root, planned(root, *GRID, "hydra.sweep.dir=old"))
    for job, status in enumerate(("done", "failed", "running")):
        (root / "old" / str(job)).mkdir()
        (root / "old" / str(job) / "job.json").write_text(json.dumps({"status": status, "settings": {}}))
    return root / "old" / "sweep.json"


def test_going_on_forgets_what_failed_and_nothing_else(root: Path, old: Path) -> None:
    before = old.read_bytes()
    found, book = open_sweep(root, going_on(root, *GRID))
    assert (found.folder, book) == (root / "old", json.loads(before))
    assert [(root / "old" / str(job) / "job.json").exists() for job in range(3)] == [True, False, True]
    assert old.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "ppo.kl_ctl=0.05,0.2", "ppo.clip_range=0.1,0.2"), "  ppo.kl_ctl: 0.05, 0.1 there, 0.05, 0.2 now"),
        (("-m", "ppo.kl_ctl=0.1,0.05", "ppo.clip_range=0.1,0.2"), "  ppo.kl_ctl: 0.05, 0.1 there, 0.1, 0.05 now"),
        (
            ("-m", "ppo.kl_ctl=0.05,0.1"),
            "  ppo.clip_range: 0.1, 0.2 there, nothing now\n  ppo.clip_range: 0.1, 0.2 there, 0.2 now",
        ),
        (
            ("-m", GRID[2], GRID[1]),
            "  the order of the settings: ppo.kl_ctl, ppo.clip_range there, ppo.clip_range, ppo.kl_ctl now",
        ),
        ((*GRID, "seed=3"), "  seed: 0 there, 3 now"),
    ],
)
def test_going_on_with_another_sweep_is_refused_and_changes_nothing(
    root: Path, old: Path, arguments: tuple[str, ...], message: str
) -> None:
    was = "it was: python stages/ppo.py -m ppo.kl_ctl=0.05,0.1 ppo.clip_range=0.1,0.2 hydra.sweep.dir=old"
    with pytest.raises(UserError) as said:
        open_sweep(root, going_on(root, *arguments))
    assert str(said.value) == f"sweep.resume ({root / 'old'}) is another sweep:\n{message}\n{was}"
    assert (root / "old" / "1" / "job.json").exists()


def test_going_on_after_an_input_has_changed_is_refused(root: Path, old: Path) -> None:
    (root / "artifacts" / "sft").write_text("another policy")
    with pytest.raises(UserError, match=r"is another sweep:\n  artifacts/sft: [0-9a-f]{32} there, [0-9a-f]{32} now\n"):
        open_sweep(root, going_on(root, *GRID))


def test_going_on_with_the_sweep_of_another_stage_is_refused(root: Path, old: Path) -> None:
    with pytest.raises(UserError, match=r"is another sweep:\n  stage: ppo there, dpo now\n"):
        open_sweep(root, going_on(root, "-m", "seed=1,2", stage="dpo"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"sweep\.resume \(.*/old\) holds no sweep: sweep\.json is not there"),
        ("{", r"old/sweep\.json is not JSON: Expecting"),
        ("", r"old/sweep\.json is not JSON: Expecting"),
        ("[]", r"old/sweep\.json is not a JSON object"),
        ('{"stage": "ppo"}', r"old/sweep\.json is not the sweep\.json of a sweep: it has no swept, jobs"),
    ],
)
def test_going_on_with_what_is_no_sweep_is_refused(root: Path, old: Path, content: str | None, message: str) -> None:
    old.unlink()
    if content is not None:
        old.write_text(content)
    with pytest.raises(UserError, match=message):
        open_sweep(root, going_on(root, *GRID))


def test_going_on_in_a_folder_that_is_not_there_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r"holds no sweep: sweep\.json is not there"):
        open_sweep(root, going_on(root, *GRID))
    assert not (root / "old").exists()
