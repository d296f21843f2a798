"""A sweep that is stopped half way, by whatever, and goes on: real processes, real Hydra, a real MLflow store."""

from __future__ import annotations

import importlib.util
import time

import pytest

from tests.runtime.conftest import Repository
from tests.runtime.sweep_runs import HELD, JOBLIB, book, mlflow_runs, row, stamps, start, stop, table, wait_for

GRID = ("-m", "ppo.kl_ctl=0.1,0.2,0.3,0.4", "hydra.sweep.dir=a sweep")
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9}


@pytest.mark.parametrize(
    ("signal", "launcher", "tracked"),
    [
        ("SIGINT", (), True),
        pytest.param("SIGTERM", (), False, marks=pytest.mark.slow),
        pytest.param("SIGKILL", (), False, marks=pytest.mark.slow),
        pytest.param("SIGINT", JOBLIB, False, marks=pytest.mark.slow),
        pytest.param("SIGTERM", JOBLIB, True, marks=pytest.mark.slow),
        ("SIGKILL", JOBLIB, True),
    ],
)
def test_a_sweep_that_is_stopped_ends_its_jobs_and_does_what_is_missing_when_it_goes_on(
    repository: Repository, signal: str, launcher: tuple[str, ...], tracked: bool
) -> None:
    repository.write_stage(HELD)
    (repository.root / "hold").write_text("0.2 0.3")  # with joblib two are under way, and the last one waits for them
    sweep = start(repository, *GRID, *launcher, tracked=tracked)
    wait_for(sweep, "sweep 1/4 jobs", *["held"] * (2 if launcher else 1))
    code, said = stop(sweep, signal)
    folder = repository.root / "a sweep"
    assert code == CODES[signal]
    if signal != "SIGKILL":
        command = " ".join(["python stages/ppo.py -m ppo.kl_ctl=0.1,0.2,0.3,0.4 'hydra.sweep.dir=a sweep'", *launcher])
        assert f"\nto go on: {command} 'sweep.resume=a sweep'\n" in f"\n{said}"
    begun = 3 if launcher else 2
    assert [book(folder / str(job))["status"] for job in range(begun)] == ["done", *["running"] * (begun - 1)]
    assert not any((folder / str(job) / "job.json").exists() for job in range(begun, 4)), "the launcher is gone"
    (parent,), jobs = mlflow_runs(repository) if tracked else ([None], [])
    if tracked:
        assert [parent.status, jobs[0].name, jobs[0].status] == ["KILLED", "ppo #0", "FINISHED"]
        stopped = [(job.name, job.status) for job in jobs[1:]]  # whose run may not have been opened yet
        assert {("ppo #1", "KILLED")} <= set(stopped) <= {(f"ppo #{job}", "KILLED") for job in range(1, begun)}

    (repository.root / "hold").unlink()
    done = stamps(folder / "0")
    again = start(repository, *GRID, *launcher, "sweep.resume=a sweep", tracked=tracked)
    told, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert stamps(folder / "0") == done
    assert "ppo #0" not in told
    assert table(folder) == [row(0, "0.1"), row(1, "0.2"), row(2, "0.3"), row(3, "0.4")]
    if tracked:
        (same,), jobs = mlflow_runs(repository)
        assert (same.id, same.status, "sweep.csv" in same.files) == (parent.id, "FINISHED", True)
        finished = [(f"ppo #{job}", "FINISHED") for job in range(4)]
        assert sorted((job.name, job.status) for job in jobs) == sorted([*finished, *stopped])
        assert {job.parent for job in jobs} == {same.id}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="needs hydra-submitit-launcher")
def test_jobs_on_a_cluster_outlive_the_launcher_and_whoever_goes_on_waits_for_them(repository: Repository) -> None:
    """submitit's local executor stands for SLURM: it, too, starts jobs that are nobody's children."""
    repository.write_stage(HELD)
    (repository.root / "hold").write_text("0.2")
    command = ("-m", "ppo.kl_ctl=0.1,0.2", "hydra/launcher=submitit_local", "hydra.sweep.dir=mine")
    mine = repository.root / "mine"
    launcher = start(repository, *command, tracked=False)
    deadline = time.monotonic() + 120
    while [book(place)["status"] for place in sorted(mine.glob("[01]")) if (place / "job.json").exists()] != [
        "done",
        "running",
    ]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    launcher.kill()
    launcher.wait()
    begun = (mine / "1" / ".hydra" / "config.yaml").stat().st_mtime_ns

    again = start(repository, *command, "sweep.resume=mine", tracked=False)
    wait_for(again, "sweep of 2 jobs in mine, 1 done")
    time.sleep(1.0)
    assert again.poll() is None
    assert book(mine / "1")["status"] == "running"
    (repository.root / "hold").unlink()
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert table(mine) == [row(0, "0.1"), row(1, "0.2")]
    assert (mine / "1" / ".hydra" / "config.yaml").stat().st_mtime_ns == begun, "it did not begin anew"
