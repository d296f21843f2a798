"""What a stage was made from: the commit, the experiment, and the md5 of everything it depends on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf.runtime.hashes import md5_of
from rlhf.runtime.pipeline import read_yaml


def provenance(root: Path, stage: str, settings: Mapping[str, str]) -> dict[str, str]:
    """Tags for a run: git, the DVC experiment, and `md5/PATH` for every input, as dvc.lock has it."""
    stages = (read_yaml(root / "dvc.lock").get("stages") or {}).values()
    made = {out["path"]: out.get("md5", "") for entry in stages for out in entry.get("outs", [])}
    dependencies = _resolve((read_yaml(root / "dvc.yaml").get("stages") or {}).get(stage, {}).get("deps", []), settings)
    hashes = {path: _hash(root, path, made) for path in dependencies}
    return _git(root) | _experiment() | {_tag(path): md5 for path, md5 in hashes.items() if md5}


def _tag(path: str) -> str:
    """MLflow refuses a name that, as a path, means another one; a path outside the repository would give such a name."""
    return "/".join(["md5", *(part for part in Path(path).parts if part not in ("/", ".."))])


def _hash(root: Path, path: str, made: Mapping[str, str]) -> str:
    """The lock's md5 of what another stage made; what nobody made, or only a part of an output, is read."""
    if path in made:
        return made[path]
    return md5_of(root / path) if (root / path).exists() else ""


def _resolve(dependencies: list[Any], settings: Mapping[str, str]) -> list[str]:
    """`${data.path}` as its value."""
    paths = [next(iter(entry)) if isinstance(entry, dict) else str(entry) for entry in dependencies]
    return [settings.get(path[2:-1], path) if path.startswith("${") else path for path in paths]


def _git(root: Path) -> dict[str, str]:
    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {}
    return {"git_commit": commit, "git_dirty": str(bool(git("status", "--porcelain"))).lower()}


def _experiment() -> dict[str, str]:
    names = {"dvc_experiment": "DVC_EXP_NAME", "dvc_baseline": "DVC_EXP_BASELINE_REV"}
    return {tag: os.environ[name] for tag, name in names.items() if name in os.environ}
