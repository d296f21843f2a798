"""Plants each fault of faults.toml in a copy of the project and says which ones no test notices: `make mutants`.

python benchmarks/faults.py            all of them
python benchmarks/faults.py WORD …     those whose names contain one of the words
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.errors import UserError
from rlhf.runtime.processes import attempt

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("faults.toml")
COPIED = ("src", "tests", "stages", "conf", "data", "docs", "benchmarks", "pyproject.toml", "params.yaml", "dvc.yaml")
TESTS_FAILED = 1  # pytest's own exit code; 2 and above say that it could not run


@dataclass(frozen=True)
class Fault:
    """One edit of one file, and the tests that have to notice it."""

    name: str
    file: str
    find: str
    replace: str
    tests: list[str]


def faults() -> list[Fault]:
    return [Fault(**entry) for entry in tomllib.loads(LIST.read_text(encoding="utf-8"))["fault"]]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "python benchmarks/faults.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="part of a fault's name")
    chosen = choose(parser.parse_args(arguments).words)
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_of_the_project(Path(folder) / "project")
        unnoticed = [fault.name for fault in chosen if not noticed(copy, fault)]
    print(f"{len(chosen) - len(unnoticed)} of {len(chosen)} faults noticed")
    return 1 if unnoticed else 0


def choose(words: Sequence[str]) -> list[Fault]:
    """All without words; raises UserError for a word that no name contains."""
    listed = faults()
    for word in words:
        if not any(word in fault.name for fault in listed):
            raise UserError(
                f"none of the {len(listed)} faults has {word!r} in its name; the names are in benchmarks/{LIST.name}"
            )
    return [fault for fault in listed if not words or any(word in fault.name for word in words)]


def copy_of_the_project(to: Path) -> Path:
    to.mkdir()
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, to / name)
    return to


def noticed(copy: Path, fault: Fault) -> bool:
    """Whether its tests fail with the fault in place; the copy is left as it was."""
    file = copy / fault.file
    sound = file.read_text(encoding="utf-8")
    file.write_text(sound.replace(fault.find, fault.replace), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *fault.tests]
        environment = os.environ | {"PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    finally:
        file.write_text(sound, encoding="utf-8")
    said = "noticed" if done.returncode == TESTS_FAILED else f"NOT NOTICED (pytest ended with {done.returncode})"
    print(f"{said}: {fault.name}", flush=True)
    return done.returncode == TESTS_FAILED


if __name__ == "__main__":
    sys.exit(attempt("faults", lambda: main(sys.argv[1:])))
