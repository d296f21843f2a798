"""A git clone of this checkout, and the means to run in it what a user would: git, DVC, the stage scripts, MLflow."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TRAINED = ("base", "sft", "reward", "ppo", "dpo")
STAGES = ("prepare", "base", "sft", "sample", "label", "reward", "ppo", "dpo", "evaluate")
SECONDS = 500  # a command that takes longer hangs
FOREIGN = ("DVC_", "GIT_", "HF_", "HYDRA_", "MLFLOW_", "MPL", "PYTHONPATH", "RLHF_", "XDG_")
IDENTITY = "[user]\n\tname = someone\n\temail = someone@example.org\n[safe]\n\tdirectory = *\n"


@dataclass(frozen=True)
class Done:
    """What a command said, and its exit code."""

    stdout: str
    stderr: str
    code: int

    @property
    def ran(self) -> list[str]:
        """The stages that DVC ran, in order."""
        return re.findall(r"^Running stage '(\w+)':", self.stdout, re.MULTILINE)

    @property
    def skipped(self) -> list[str]:
        """The stages of which DVC said that they had not changed, in order."""
        return re.findall(r"^Stage '(\w+)' didn't change, skipping", self.stdout, re.MULTILINE)


@dataclass(frozen=True)
class Clone:
    """A clone at `root`; `home` takes what programs leave in the user's home."""

    root: Path
    home: Path

    def run(self, *command: str, code: int | None = 0, **environment: str) -> Done:
        """Runs a command to its end; a test fails with its output if it ends with another code, or does not end."""
        with subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment() | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                stdout, stderr = process.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                stdout, stderr = process.communicate()
                stderr += f"\nkilled after {SECONDS} s"
        if code is not None and process.returncode != code:
            pytest.fail(
                f"{' '.join(command)}: exit code {process.returncode}, not {code}\n{stdout}\n{stderr}", pytrace=False
            )
        return Done(stdout, stderr, process.returncode)

    def dvc(self, *arguments: str, code: int | None = 0) -> Done:
        return self.run("dvc", *arguments, code=code)

    def stage(self, name: str, *arguments: str, code: int | None = 0, **environment: str) -> Done:
        """A stage's script, run directly."""
        return self.run("python", f"stages/{name}.py", *arguments, code=code, **environment)

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments).stdout.strip()

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def environment(self) -> dict[str, str]:
        """The programs beside the running interpreter come first, and nobody's own settings come in.

        PYTHONPATH stands for the installation that a clone has in an environment of its own.
        """
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
        programs = [str(Path(sys.executable).parent), sysconfig.get_path("scripts"), os.environ["PATH"]]
        return inherited | {
            "PATH": os.pathsep.join(programs),
            "HOME": str(self.home),
            "DVC_SITE_CACHE_DIR": str(self.home / "dvc"),
            "PYTHONPATH": str(self.root / "src"),
        }

    def artifact(self, *parts: str) -> Path:
        return self.root.joinpath("artifacts", *parts)

    def lock(self) -> dict[str, Any]:
        """dvc.lock, by stage."""
        return dict(yaml.safe_load((self.root / "dvc.lock").read_text(encoding="utf-8"))["stages"])

    def md5s(self) -> dict[str, str]:
        """What each stage made, by stage."""
        return {name: entry["outs"][0]["md5"] for name, entry in self.lock().items()}

    def params(self) -> dict[str, Any]:
        return dict(yaml.safe_load((self.root / "params.yaml").read_text(encoding="utf-8")))

    def copy(self, root: Path) -> Clone:
        """The clone as it stands, its cache, its experiments and its MLflow store too, at another place."""
        shutil.copytree(self.root, root, symlinks=True)
        if (root / "mlflow.db").exists():
            with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as store, store:
                store.execute("update experiments set artifact_location = ?", (str(root / "mlruns" / "0"),))
        return replace(self, root=root)


def clone(source: Path, root: Path, home: Path) -> Clone:
    """A git clone that also has what is not committed in the source yet: what stands in the editor is what gets tested.

    Only what a run of the user's left in dvc.lock is no edit, and stays behind.
    """
    home.mkdir(exist_ok=True)
    (home / ".gitconfig").write_text(IDENTITY, encoding="utf-8")
    original, made = Clone(source, home), Clone(root, home)
    original.git("clone", "--quiet", str(source), str(root))
    changed = original.git("diff", "--name-only", "-z", "HEAD") + "\0"
    changed += original.git("ls-files", "--others", "--exclude-standard", "-z")
    names = [name for name in changed.split("\0") if name and name != "dvc.lock"]
    for name in names:
        (root / name).unlink(missing_ok=True)
        if (source / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, root / name)
    if names:
        made.commit("What was not committed yet")
    return made


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder by its path, with the sha256 of its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def only(folder: Path) -> Path:
    """The one entry of a folder."""
    (found,) = folder.iterdir()
    return found
