"""What the benchmarks say of themselves, and of words that name nothing, before anything runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from benchmarks.enumerable_runs import METHODS

from benchmarks import closed_form, faults, mutants, over_seeds, sweeps
from rlhf.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("module", [closed_form, faults, mutants, over_seeds, sweeps], ids=lambda module: module.__name__)
def test_help_tells_what_it_does_and_how_to_call_it(module: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    command = said.split(" [-h]")[0].removeprefix("usage: ")
    assert command in ("python -m " + module.__name__, f"python {module.__name__.replace('.', '/')}.py")
    assert module.__doc__ is not None
    assert command in module.__doc__
    assert module.__doc__.strip() in said


@pytest.mark.parametrize("name", ["closed_form", "faults", "gpu", "mutants", "over_seeds", "sweeps"])
def test_each_can_be_called_by_its_path_from_anywhere(name: str, tmp_path: Path) -> None:
    call = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--help"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")


def test_what_is_measured_on_a_gpu_runs_on_the_cpu() -> None:
    """All its kinds of work, on a model of 51 thousand parameters; and it is exact and repeatable there, too."""
    call = [sys.executable, "-m", "benchmarks.gpu", "--cpu", "tiny"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    *timed, properties = lines[1:]
    assert [line["work"] for line in timed] == ["sft", "reward", "dpo", "ppo"]
    assert all(line["tokens_per_s"] > 0 and line["parameters"] > 0 for line in timed)
    assert (properties["kl_before"], properties["same_figures_twice"], properties["same_weights_twice"]) == (0.0, True, True)
    assert properties["first_ratio_peak"] == pytest.approx(1.0, abs=1e-4)
    assert properties["last_ratio_peak"] > 1.001, "it has learnt something"
    assert [line.split(" | ")[1] for line in done.stdout.splitlines()[-4:]] == ["sft", "reward", "dpo", "ppo"]


@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        (closed_form, ["ppo", "poo"], "invalid choice: 'poo'"),
        (mutants, ["two"], "invalid int value: 'two'"),
        (mutants, ["0"], "PROCESSES is 0"),
        (over_seeds, [], "required: RUN"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(
    module: ModuleType, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        module.main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["sft", "dpo"], "sft has no default sweep"), (["--jobs", "1"], "--jobs 1 is no number of jobs at once")],
)
def test_sweeps_that_cannot_be_timed_are_refused(arguments: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        sweeps.main(arguments)


def test_what_a_sweep_costs_is_told_apart_from_the_pace_of_the_machine() -> None:
    alone, together = sweeps.Timed(110.0, 100.0, 80.0, 4), sweeps.Timed(66.0, 120.0, 88.0, 4)
    told = dict(zip(sweeps.header(2), sweeps.row("dpo", alone, together, 2), strict=True))
    assert told == {
        "sweep": "sweep_dpo",
        "jobs": "4",
        "one after another, s": "110",
        "of that its jobs, s": "100",
        "overhead": "10.0%",
        "2 at once, s": "66",
        "ratio": "1.20",
        "CPU s of its jobs": "80",
        "CPU s of its jobs, 2 at once": "88",
        "ratio at one pace": "1.09",
    }


def test_the_methods_can_be_read_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        closed_form.main(["--help"])
    said = capsys.readouterr().out.replace(",", " ").split()
    assert set(METHODS) <= set(said)


def test_faults_are_chosen_by_words_of_their_names() -> None:
    assert faults.choose([]) == faults.faults()
    chosen = [fault.name for fault in faults.choose(["dropout", "the KL"])]
    assert chosen == [fault.name for fault in faults.faults() if "dropout" in fault.name or "the KL" in fault.name]
    assert len(chosen) > 1


def test_a_word_that_no_fault_has_is_refused_though_others_are_right() -> None:
    with pytest.raises(UserError, match=r"^none of the \d+ faults has 'droput' in its name"):
        faults.main(["KL", "droput"])


@pytest.mark.parametrize(
    ("ends", "code", "ran"),
    [((0, 0), 0, 2), ((1, 0), 2, 2), ((0, 1), 2, 2), ((1, 1), 2, 2), ((130, 0), 2, 1)],
    ids=["both pass", "mutants survive", "faults are unnoticed", "both fail", "stopped"],
)
def test_make_mutants_runs_both_parts_and_fails_with_either(
    tmp_path: Path, ends: tuple[int, int], code: int, ran: int
) -> None:
    """With another `python`, which only ends as it is told: the parts themselves take many minutes."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "ran $*"\ncase "$*" in *mutants*) exit {ends[0]};; *) exit {ends[1]};; esac\n')
    python.chmod(0o755)
    command = ["make", "--old-file=setup", "mutants", f"PATH={tmp_path}:/usr/bin:/bin"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout.count("\nran ") + done.stdout.startswith("ran ") == ran
