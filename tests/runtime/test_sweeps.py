"""A sweep as people start it: real processes, real Hydra under each of its launchers, a real MLflow store."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from tests.runtime.conftest import Repository
from tests.runtime.sweep_runs import HELD, JOBLIB, book, mlflow_runs, row, stamps, start, table, wait_for

FOUR = [("0.05", "0.1"), ("0.05", "0.2"), ("0.1", "0.1"), ("0.1", "0.2")]
SUBMITIT = ("hydra/launcher=submitit_local",)
WITH_SUBMITIT = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None,
    reason="needs hydra-submitit-launcher",
)
EXPERIMENT = """# @package _global_
hydra: {mode: MULTIRUN, sweeper: {params: {ppo.kl_ctl: "0.05,0.1"}}}
"""


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


@pytest.mark.parametrize(
    "launcher",
    [pytest.param((), marks=pytest.mark.slow), JOBLIB, pytest.param(SUBMITIT, marks=[pytest.mark.slow, WITH_SUBMITIT])],
    ids=["basic", "joblib", "submitit"],
)
def test_a_sweep_leaves_a_folder_a_job_and_its_books(repository: Repository, launcher: tuple[str, ...]) -> None:
    repository.write_stage()
    done, _ = repository.run_untracked("-m", "ppo.kl_ctl=0.05,0.1", "ppo.clip_range=0.1,0.2", *launcher)
    assert done.returncode == 0, done.stderr
    folder = only(repository.root / "sweeps" / "ppo")
    jobs = [{"ppo.kl_ctl": kl_ctl, "ppo.clip_range": clip_range} for kl_ctl, clip_range in FOUR]
    asked = book(folder, "sweep.json")
    assert (asked["stage"], asked["jobs"], asked["inputs"]) == ("ppo", jobs, {})
    for number, values in enumerate(jobs):
        place = folder / str(number)
        assert (book(place)["status"], book(place)["settings"], book(place)["message"]) == ("done", values, "")
        assert book(place, "metrics.json")["kl_ctl"] == float(values["ppo.kl_ctl"])
        assert f"clip_range: {values['ppo.clip_range']}" in (place / ".hydra" / "config.yaml").read_text()
        assert (place / "curve.csv").read_text().splitlines()[-1] == "3,0.3333333333333333"
    third = {"ppo/nested/loss": "0.3333333333333333", "message": ""}
    assert table(folder) == [
        {"job": str(number), "status": "done", **values, "ppo/kl_ctl": values["ppo.kl_ctl"], **third}
        for number, values in enumerate(jobs)
    ]
    assert ("sweep 4/4 jobs" in done.stdout) is (launcher != SUBMITIT), "submitit keeps what jobs say in files of its own"


def test_a_grid_in_an_experiment_is_swept_without_m_and_the_command_line_wins(repository: Repository) -> None:
    repository.write_stage()
    (repository.root / "conf" / "experiment" / "grid.yaml").write_text(EXPERIMENT)
    done, said = repository.run_untracked("experiment=grid", "ppo.kl_ctl=0.3,0.4", "hydra.sweep.dir=mine")
    assert (done.returncode, said) == (0, [])
    assert table(repository.root / "mine") == [row(0, "0.3"), row(1, "0.4")]


FAULTS = """
    from rlhf.errors import UserError
    if run.config.ppo.kl_ctl == 0.2:
        raise UserError("data/x.jsonl:17: field is null")
    if run.config.ppo.kl_ctl == 0.3:
        1 / 0
"""
MESSAGES = {
    "-1": "ppo.kl_ctl (-1) must be a finite number of at least 0",
    "0.2": "data/x.jsonl:17: field is null",
    "0.3": "ZeroDivisionError: division by zero",
}


@pytest.mark.parametrize("launcher", [(), JOBLIB], ids=["basic", "joblib"])
def test_a_job_that_fails_says_why_and_the_others_run_and_it_can_be_tried_again(
    repository: Repository, launcher: tuple[str, ...]
) -> None:
    repository.write_stage(FAULTS)
    command = ("-m", "ppo.kl_ctl=-1,0.2,0.3,0.4", *launcher, "hydra.sweep.dir=mine")
    folder, tracked = repository.root / "mine", launcher == JOBLIB
    done = repository.run(*command) if tracked else repository.run_untracked(*command)[0]
    assert done.returncode == 1
    failed = [row(number, kl_ctl, "failed", message) for number, (kl_ctl, message) in enumerate(MESSAGES.items())]
    assert table(folder) == [*failed, row(3, "0.4")]
    assert [book(folder / str(number))["message"] for number in range(3)] == list(MESSAGES.values())
    again = f"to try again what failed: python stages/ppo.py {' '.join(command)} sweep.resume=mine"
    last = [line for line in done.stderr.splitlines() if not line.startswith("warning: no MLflow")][-4:]
    assert last == [*(f"job {number} failed: {said}" for number, said in enumerate(MESSAGES.values())), again]
    if tracked:
        (parent,), jobs = mlflow_runs(repository)
        assert (parent.name, parent.status, "sweep.csv" in parent.files) == ("ppo sweep", "FAILED", True)
        # the first job has no run: its settings were refused before anything began
        found = [(job.name, job.status, job.parent, "curve.csv" in job.files) for job in jobs]
        assert found == [(f"ppo #{n}", s, parent.id, True) for n, s in ((1, "FAILED"), (2, "FAILED"), (3, "FINISHED"))]
        return
    repository.write_stage()
    kept = stamps(folder / "3")
    done, _ = repository.run_untracked(*command, "sweep.resume=mine")
    assert done.returncode == 1, "the first can never be right"
    assert stamps(folder / "3") == kept
    assert table(folder) == [failed[0], row(1, "0.2"), row(2, "0.3"), row(3, "0.4")]


def test_a_job_that_takes_its_process_along_does_not_keep_the_others_from_running(repository: Repository) -> None:
    repository.write_stage("import os, signal; run.config.ppo.kl_ctl == 0.1 and os.kill(os.getpid(), signal.SIGKILL)")
    one = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.launcher.pre_dispatch=1")
    done, _ = repository.run_untracked("-m", "ppo.kl_ctl=0.1,0.2,0.3", *one, "hydra.sweep.dir=mine")
    assert done.returncode == 1, done.stderr
    gone = "its process ended, or was ended with another's: TerminatedWorkerError"
    assert table(repository.root / "mine") == [row(0, "0.1", "failed", gone), row(1, "0.2"), row(2, "0.3")]
    assert done.stderr.splitlines()[-1].startswith("to try again what failed: python stages/ppo.py -m ppo.kl_ctl=")


NEIGHBOURS = """
    import os, signal, time
    began = run.root / "began"
    if run.config.ppo.kl_ctl == 0.1:
        while not began.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    if run.config.ppo.kl_ctl == 0.2 and not began.exists():
        began.touch()
        time.sleep(600)
"""


def test_a_job_that_was_ended_with_the_process_of_another_is_tried_again_alone(repository: Repository) -> None:
    repository.write_stage(NEIGHBOURS)
    done, _ = repository.run_untracked("-m", "ppo.kl_ctl=0.1,0.2,0.3", *JOBLIB, "hydra.sweep.dir=mine")
    assert done.returncode == 1, done.stderr
    gone = "its process ended, or was ended with another's: TerminatedWorkerError"
    assert table(repository.root / "mine") == [row(0, "0.1", "failed", gone), row(1, "0.2"), row(2, "0.3")]


def test_what_fails_while_it_is_imported_is_written_down_like_any_other_failure(repository: Repository) -> None:
    script = repository.write_stage()
    script.write_text(script.read_text().replace("def main(", "raise ImportError('no such library')\n\n\ndef main("))
    done, _ = repository.run_untracked("-m", "ppo.kl_ctl=0.1,0.2", "hydra.sweep.dir=mine")
    assert done.returncode == 1
    told = [(job["status"], job["message"]) for job in table(repository.root / "mine")]
    assert told == [("failed", "ImportError: no such library")] * 2


EXAM = """
from rlhf.errors import UserError
from rlhf.runtime.sweeps.sweep import Reading


def examine(run, policy):
    with (run.root / "examined").open("a") as file:
        file.write(policy + "\\n")
    if not (run.root / "easy").exists():
        raise UserError("mine.py fell over")
    run.finish({"mark": 1.5})


READING = Reading(lambda root, plan: {}, examine, lambda root, folder: "")
"""
TRAINS = """
    with (run.root / "trained").open("a") as file:
        file.write("once more\\n")
"""


def test_where_the_exam_failed_the_policy_is_kept_and_examined_again(repository: Repository) -> None:
    script = repository.write_stage(TRAINS)
    text = script.read_text().replace("if __name__", f"{EXAM}\n\nif __name__", 1)
    script.write_text(text.replace("stage(__file__)", "stage(__file__, READING)"))
    command = ("-m", "ppo.kl_ctl=0.1,0.2", "hydra.sweep.dir=mine")
    done, said = repository.run_untracked(*command)
    assert (done.returncode, said[:2]) == (1, ["ppo #0: mine.py fell over", "ppo #1: mine.py fell over"])
    for file in (repository.root / "mine").glob("*/job.json"):
        written = json.loads(file.read_text())
        file.write_text(json.dumps(written | {"seconds": written["seconds"] + 1000, "cpu_seconds": 2000.0}))
    before = stamps(repository.root / "mine")

    (repository.root / "easy").touch()
    done, said = repository.run_untracked(*command, "sweep.resume=mine")
    assert (done.returncode, said) == (0, [])
    after = stamps(repository.root / "mine")
    assert (repository.root / "trained").read_text() == "once more\n" * 2
    for file in (repository.root / "mine").glob("*/job.json"):
        written = json.loads(file.read_text())
        assert 1000 < written["seconds"] < 1100
        assert 2000 < written["cpu_seconds"] < 2100
    kept = {f"{job}/{name}" for job in "01" for name in ("curve.csv", "metrics.json")}
    assert {name: before[name] for name in kept} == {name: after[name] for name in kept}
    assert [(one["status"], one["mark"], one["ppo/kl_ctl"]) for one in table(repository.root / "mine")] == [
        ("done", "1.5", "0.1"),
        ("done", "1.5", "0.2"),
    ]
    policies = (repository.root / "examined").read_text().splitlines()
    assert policies[:2] == policies[2:], "a policy has the same name, and with it the same random numbers, every time"
    assert policies[0].startswith("ppo ppo.kl_ctl=0.1 (")
    assert policies[0][-9:] != policies[1][-9:]


def test_a_second_process_does_not_go_on_with_a_sweep_that_is_under_way(repository: Repository) -> None:
    repository.write_stage(HELD)
    (repository.root / "hold").write_text("0.1")
    command = ("-m", "ppo.kl_ctl=0.1,0.2", "hydra.sweep.dir=mine")
    with start(repository, *command, tracked=False) as sweep:
        wait_for(sweep, "held")
        mine = repository.root / "mine"
        books = {file: file.read_bytes() for file in mine.rglob("*.json")}
        done, said = repository.run_untracked(*command, "sweep.resume=mine")
        assert (done.returncode, said) == (1, [f"ppo: another process is at work on {mine}: wait for its end, or stop it"])
        assert {file: file.read_bytes() for file in mine.rglob("*.json")} == books
        (repository.root / "hold").unlink()
        sweep.communicate(timeout=120)
    assert table(mine) == [row(0, "0.1"), row(1, "0.2")]


@pytest.mark.slow
def test_two_sweeps_that_begin_in_one_second_where_there_is_no_store_yet_do_not_disturb_each_other(
    repository: Repository,
) -> None:
    script = repository.write_stage()
    script.write_text("import time\ntime.strftime = lambda *_: '2026-01-01_00-00-00'\n" + script.read_text())
    (repository.root / "mlflow.db").unlink()
    sweeps = [start(repository, "-m", "ppo.kl_ctl=0.1,0.2") for _ in range(2)]
    ended = [(*sweep.communicate(timeout=240), sweep.returncode) for sweep in sweeps]
    assert [(said, code) for _, said, code in ended] == [("", 0), ("", 0)]
    folders = sorted((repository.root / "sweeps" / "ppo").iterdir())
    assert [folder.name for folder in folders] == ["2026-01-01_00-00-00", "2026-01-01_00-00-00-2"]
    assert [table(folder) for folder in folders] == [[row(0, "0.1"), row(1, "0.2")]] * 2
    parents, jobs = mlflow_runs(repository)
    assert {parent.id for parent in parents} == {book(folder, "sweep.json")["mlflow_run"] for folder in folders}
    assert [run.status for run in [*parents, *jobs]] == ["FINISHED"] * 6
    assert sorted((job.parent or "", job.name) for job in jobs) == sorted(
        (parent.id, name) for parent in parents for name in ("ppo #0", "ppo #1")
    )


DVC = "stages: {ppo: {cmd: python stages/ppo.py, params: [seed, ppo]}}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "sft.lr=0.1,0.2"), "ppo: sft.lr is not read by ppo: all jobs would be the same; it reads seed, ppo (for"),
        (("-m", "seed=1,2", "hydra.sweep.dir=taken"), "ppo: ROOT/taken is taken: name another one, or go on"),
        (("-m", "seed=1,2", "sweep.resume=taken"), "ppo: ROOT/taken/sweep.json is not JSON: Expecting value: line 1"),
        (("sweep.resume=taken",), "ppo: sweep.resume is for a sweep: give its whole command again, with its -m"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_one_message_and_nothing_is_written(
    repository: Repository, arguments: tuple[str, ...], message: str
) -> None:
    repository.write_stage()
    (repository.root / "dvc.yaml").write_text(DVC)
    (repository.root / "taken").mkdir()
    (repository.root / "taken" / "sweep.json").write_text("of somebody else")
    before = stamps(repository.root)
    done = repository.run(*arguments)
    (said,) = done.stderr.splitlines()
    assert (done.returncode, said.startswith(message.replace("ROOT", str(repository.root)))) == (1, True), said
    shutil.rmtree(repository.root / "stages" / "__pycache__", ignore_errors=True)
    assert stamps(repository.root) == before


@pytest.mark.parametrize("arguments", [("--help",), ("-m", "--help"), ("--cfg", "job")])
def test_questions_are_answered_and_nothing_is_run(repository: Repository, arguments: tuple[str, ...]) -> None:
    repository.write_stage()
    done = repository.run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "kl_ctl: " in done.stdout
    assert not (repository.root / "runs").exists()
    assert not (repository.root / "sweeps").exists()
