"""What a command line asks for, before anything is written."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from rlhf.errors import UserError
from rlhf.runtime.sweeps.plan import plan
from tests.runtime.sweep_runs import GRID, planned


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
        ("ppo.kl_ctl=0.3,0.4", grid(("0.3", "0.1"), ("0.3", "0.2"), ("0.4", "0.1"), ("0.4", "0.2"))),
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


def test_what_the_choices_of_a_group_differ_in_is_not_told_as_shared(root: Path) -> None:
    found = planned(root, "-m", "ppo=step_1,step_2,step_3", "seed=0,1").settings
    assert found["ppo"] == "step_1, step_2, step_3"
    assert found["ppo.weight"] == "action_value, advantage"
    assert found["ppo.kl_ctl"] == "0.0, 0.6"
    assert found["ppo.lam"] == 0.0


def test_a_setting_without_a_default_can_be_swept(root: Path) -> None:
    (root / "dvc.yaml").unlink()
    assert planned(root, "-m", "data=files", "labeler=dataset", "data.path=a,b").swept == {"data.path": ["a", "b"]}


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


def test_a_folder_may_be_named_by_what_hydra_knows(root: Path) -> None:
    found = planned(root, *GRID, "hydra.sweep.dir='sweeps/${hydra.job.name}/of_${now:%Y}'")
    assert (found.folder, found.named) == (root / "sweeps" / "ppo" / f"of_{time.strftime('%Y')}", True)


def test_an_experiment_may_name_the_folder(root: Path) -> None:
    (root / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nhydra: {sweep: {dir: here}}\n")
    found = planned(root, *GRID, "experiment=mine")
    assert (found.folder, found.named) == (root / "here", True)


def test_a_setting_that_is_added_or_overridden_is_the_same_setting(root: Path) -> None:
    assert planned(root, "-m", "++ppo.kl_ctl=0.1,0.3").jobs == [{"ppo.kl_ctl": "0.1"}, {"ppo.kl_ctl": "0.3"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m",), "nothing is swept: give a setting several values"),
        (("-m", "ppo.kl_ctl=0.1"), "nothing is swept"),
        (("-m", "ppo.kl_ctl=0.1,0.1"), "nothing is swept"),
        (("-m", "ppo.kl_ctl="), "nothing is swept"),
        (("-m", "seed=1,2,1"), r"jobs 0 \(seed=1\) and 2 \(seed=1\) would be the same: name every value once"),
        (("-m", "ppo=default,step_6"), r"jobs 0 \(ppo=default\) and 1 \(ppo=step_6\) would be the same"),
        (("-m", "ppo.kl_ctl=-1,-2", "seed=-1"), r"^seed \(-1\) must be"),
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
        (("-m", "data=files", "data.path=a", "seed=1,2"), r"labeler\.name \(gold\) needs a gold rater"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_said_before_anything_is_written(
    root: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan(root, "ppo", arguments)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm"])
def test_a_sweep_composes_for_every_launcher(root: Path, launcher: str) -> None:
    if launcher.startswith("submitit"):
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    options = ("hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=1") if launcher == "submitit_slurm" else ()
    found = plan(root, "ppo", ["-m", "seed=0,1", f"hydra/launcher={launcher}", *options])
    assert found is not None
    assert found.jobs == [{"seed": "0"}, {"seed": "1"}]
