"""A stage as people and DVC start it: real processes, real Hydra, a real MLflow store."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf import config
from rlhf.errors import UserError
from rlhf.runtime import parents, pipeline, settings, tracking
from rlhf.runtime.run import Run
from tests.runtime.conftest import NO_MLFLOW_WARNING, ROOT, Repository


def statuses(repository: Repository) -> list[str]:
    with sqlite3.connect(repository.root / "mlflow.db") as store:
        return [status for (status,) in store.execute("select status from runs order by start_time")]


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def snapshot(repository: Repository, *overrides: str) -> None:
    """params.yaml as DVC would have it."""
    from omegaconf import OmegaConf

    composed = settings.compose(repository.root, overrides)
    (repository.root / "params.yaml").write_text(OmegaConf.to_yaml(composed), encoding="utf-8")


def test_a_direct_run_leaves_its_outputs_in_runs_and_a_run_in_mlflow(repository: Repository) -> None:
    repository.write_stage()
    done = repository.run("ppo.kl_ctl=0.25")
    assert done.returncode == 0, done.stderr
    output = only(repository.root / "runs" / "ppo")
    assert (output / "curve.csv").read_text() == "step,loss\n1,1.0\n2,0.5\n3,0.3333333333333333\n"
    assert json.loads((output / "metrics.json").read_text()) == {"kl_ctl": 0.25, "nested": {"loss": 1 / 3}}
    assert "kl_ctl: 0.25" in done.stdout.split("ppo 3/3")[0]
    assert statuses(repository) == ["FINISHED"]


def test_under_dvc_the_settings_are_those_of_params_yaml_and_nothing_but_results_is_written(repository: Repository) -> None:
    repository.write_stage()
    snapshot(repository, "ppo.kl_ctl=0.75")
    done, _ = repository.run_untracked(DVC_STAGE="ppo")
    assert done.returncode == 0, done.stderr
    output = repository.root / "artifacts" / "ppo"
    assert sorted(path.name for path in output.iterdir()) == ["curve.csv", "metrics.json"]
    assert json.loads((output / "metrics.json").read_text())["kl_ctl"] == 0.75


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("ppo.kl_clt=0.2", "ppo: ppo.kl_clt: no such setting; did you mean ppo.kl_ctl?"),
        ("ppo.lr=nan", "ppo: ppo.lr (nan) must be a finite number above 0"),
        ("ppo.lr=[1", "ppo: no viable alternative at input '[1'"),
        (
            "--lr=3",
            "ppo: unrecognized arguments: --lr=3; settings have no dashes, as in seed=1 (--help lists the options)",
        ),
    ],
)
def test_what_is_wrong_with_a_setting_is_said_in_one_line_before_torch_is_imported(
    repository: Repository, argument: str, message: str
) -> None:
    repository.write_stage()
    done = repository.run(argument, python=("-X", "importtime"))
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert (done.returncode, said) == (1, [message])
    assert "hydra" in imported
    assert "torch" not in imported
    assert statuses(repository) == []


def test_a_bad_device_is_said_in_one_line(repository: Repository) -> None:
    repository.write_stage()
    done = repository.run(RLHF_DEVICE="tpu")
    assert (done.returncode, done.stderr) == (1, "ppo: RLHF_DEVICE (tpu) must be one of auto, cpu, cuda\n")


def test_what_the_user_can_mend_is_one_message_and_what_he_cannot_is_a_traceback(repository: Repository) -> None:
    repository.write_stage('from rlhf.errors import UserError; raise UserError("data/x.jsonl:17: field is null")')
    mendable, said = repository.run_untracked()
    assert (mendable.returncode, said) == (1, ["ppo: data/x.jsonl:17: field is null"])
    repository.write_stage("1 / 0")
    fault = repository.run()
    assert fault.returncode == 1
    assert "ZeroDivisionError" in fault.stderr
    assert statuses(repository) == ["FAILED"]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_stopped_stage_says_so_and_closes_its_run(repository: Repository, name: str, code: int) -> None:
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's background job would not hear it
    repository.write_stage(f"import signal; {heard}; signal.raise_signal(signal.{name}); signal.pause()")
    done = repository.run()
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1
    assert statuses(repository) == ["KILLED"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's death on Linux only")
def test_a_stage_ends_when_dvc_is_killed(repository: Repository) -> None:
    repository.write_stage('import signal; print("waiting", flush=True); signal.pause()')
    snapshot(repository)
    start = "import subprocess, sys; subprocess.run([sys.executable, 'stages/ppo.py'])"
    environment = repository.environment(DVC_STAGE="ppo")
    parent = subprocess.Popen([sys.executable, "-c", start], cwd=repository.root, env=environment, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    while b"waiting" not in parent.stdout.readline():
        assert parent.poll() is None
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert parent.stdout.read() == b""  # ends when the stage, which holds the other end, does
    assert statuses(repository) == ["KILLED"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's death on Linux only")
def test_a_stage_does_not_begin_when_dvc_died_before_it(repository: Repository) -> None:
    """The process that takes in orphans is its parent then."""
    if parents._program(1).startswith(("python", "pypy", "dvc")):
        pytest.skip("the first process is a Python program, and may be what has started this")
    script = repository.write_stage()
    script.write_text("import sys\nsys.stdin.read()  # until the parent is gone\n" + script.read_text())
    snapshot(repository)
    start = "import subprocess, sys; subprocess.Popen([sys.executable, 'stages/ppo.py'], stdin=subprocess.PIPE)"
    command = [sys.executable, "-c", f"{start}; import os; os._exit(0)"]
    done = subprocess.run(command, cwd=repository.root, env=repository.environment(DVC_STAGE="ppo"), capture_output=True)
    gone = b"DVC or torchrun, which has started this, was gone before it began\n"
    assert done.stderr == gone + b"ppo: stopped by SIGTERM\n"
    assert statuses(repository) == []


def test_a_checkout_runs_its_own_code_though_the_environment_knows_another(repository: Repository) -> None:
    """Renamed in the copy alone: neither the stage nor the writer that it starts could import the original's."""
    shutil.copytree(ROOT / "src", repository.root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for path in (repository.root / "src").rglob("*.py"):
        path.write_text(path.read_text(encoding="utf-8").replace("md5_of", "digest_of"), encoding="utf-8")
    script = repository.write_stage()
    script.write_text(
        script.read_text().replace("from rlhf.runtime", "from rlhf.runtime.hashes import digest_of\nfrom rlhf.runtime", 1)
    )
    done, said = repository.run_untracked()
    assert (done.returncode, said) == (0, [])
    assert NO_MLFLOW_WARNING in done.stderr, "the writer, which imports what is renamed, got as far as its own message"


def test_threads_are_those_of_the_settings_whatever_the_caller_says(repository: Repository) -> None:
    repository.write_stage(
        "import os, torch; print('threads', os.environ['OPENBLAS_NUM_THREADS'], torch.get_num_threads(), flush=True)"
    )
    done, _ = repository.run_untracked("engine.threads=2", OMP_NUM_THREADS="7", OPENBLAS_NUM_THREADS="7")
    assert "threads 1 2\n" in done.stdout, done.stderr


def make_run(root: Path, **changes: object) -> Run:
    known = {"name": "ppo", "output": root, "root": root, "device": None, "tracker": None}
    values = settings.values_of(settings.compose(ROOT))
    return Run(**({"config": config.Config.model_validate(values)} | known | changes))  # type: ignore[arg-type]


def test_a_missing_input_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="artifacts/sft/model is missing: make it with `dvc repro sft`"):
        make_run(tmp_path).read("sft", "model")


def test_a_stage_cannot_read_what_it_does_not_declare(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "sft" / "model").mkdir(parents=True)
    (tmp_path / "artifacts" / "sft" / "models").mkdir()
    run = make_run(tmp_path, declared=pipeline.Declared(deps=("artifacts/sft/model",)))
    assert run.find("sft", "model") == run.read("sft", "model") == tmp_path / "artifacts" / "sft" / "model"
    assert run.find("sft", "model/config.json") is None
    assert not run.has("sft", "model/config.json")
    with pytest.raises(LookupError, match="artifacts/sft/models is not among the deps of ppo"):
        run.has("sft", "models")


def test_a_loop_is_followed_to_its_last_row(tmp_path: Path) -> None:
    tracker = tracking.Tracker("sqlite://", writer=None, patience=0.0)
    run = make_run(tmp_path, tracker=tracker)
    assert run.follow_to_end(iter([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]), 2) == {"step": 2, "loss": 1.0}
    assert (tmp_path / "curve.csv").read_text().splitlines() == ["step,loss", "1,2.0", "2,1.0"]


def test_a_stage_sees_only_the_settings_that_it_declares(tmp_path: Path) -> None:
    whole = make_run(tmp_path).config
    seen = pipeline.visible(whole, ["seed", "data.prompts", "ppo"])
    assert (seen.seed, seen.data.prompts, seen.ppo) == (whole.seed, whole.data.prompts, whole.ppo)
    assert isinstance(seen, config.Config)
    with pytest.raises(AttributeError, match=r"Config\.sft is hidden"):
        _ = seen.sft
    with pytest.raises(AttributeError, match=r"Data\.path is hidden"):
        _ = seen.data.path


def test_seeds_differ_by_stage_and_by_purpose_and_fit_63_bits(tmp_path: Path) -> None:
    ppo, dpo = make_run(tmp_path), make_run(tmp_path, name="dpo")
    seeds = [ppo.seed("rows"), ppo.seed("rows", 1), ppo.seed("head"), dpo.seed("rows")]
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert ppo.seed("rows") == seeds[0]


def test_the_tests_run_from_a_checkout() -> None:
    assert os.path.samefile(Path(settings.__file__).parents[3], ROOT)
