"""Runs mutmut over the maths and holds what survives against equivalent_mutants.toml: `make mutants`.

python -m benchmarks.mutants               in as many processes as there are cores
python -m benchmarks.mutants PROCESSES
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":  # also by its path, where Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.faults import copy_of_the_project

from rlhf.errors import UserError
from rlhf.runtime.processes import attempt

LIST = Path(__file__).with_name("equivalent_mutants.toml")
ENOUGH = 0.95  # of all mutants, the equivalent ones among them
NOTICED = ("killed", "timeout")  # every other status, "no tests" and a crash among them, is a survivor
PROGRESS = re.compile(r"(\d+)/(\d+)  🎉")
PROGRESS_EVERY = 100  # mutants
LINES_OF_A_FAILURE = 40


@dataclass(frozen=True)
class Mutant:
    """One change of one function. Known by its text: mutmut's own numbers move with every edit of the function."""

    file: str
    function: str
    before: str
    after: str
    reason: str = field(default="", compare=False)

    def __str__(self) -> str:
        removed, added = (
            [f"    {sign} {line}" for line in text.splitlines()] for sign, text in (("-", self.before), ("+", self.after))
        )
        return "\n".join([f"{self.file}, {self.function}", *removed, *added])


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("processes", nargs="?", type=int, default=os.cpu_count() or 1, metavar="PROCESSES", help="1 or more")
    processes: int = parser.parse_args(arguments).processes
    if processes < 1:
        parser.error(f"PROCESSES is {processes}: mutants need at least one to run in")
    with tempfile.TemporaryDirectory() as folder:
        total, survivors = mutate(copy_of_the_project(Path(folder) / "project"), processes)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{used.ru_utime + used.ru_stime:.0f} CPU seconds")
    return verdict(total, survivors, equivalents())


def equivalents(file: Path = LIST) -> list[Mutant]:
    return [Mutant(**entry) for entry in tomllib.loads(file.read_text(encoding="utf-8"))["mutant"]]


def mutate(project: Path, processes: int) -> tuple[int, list[Mutant]]:
    """How many mutants of the project there are, by the [tool.mutmut] of its pyproject.toml, and which survive its tests."""
    _mutmut(project, "run", "--max-children", str(processes))
    statuses = dict(line.strip().rsplit(": ", 1) for line in _mutmut(project, "results", "--all", "true"))
    survivors = [name for name, status in statuses.items() if status not in NOTICED]
    return len(statuses), [read_mutant(name, _mutmut(project, "show", name)) for name in survivors]


def read_mutant(name: str, shown: Sequence[str]) -> Mutant:
    """From mutmut's name of a mutant and what `mutmut show` says of it: a unified diff of the function."""
    mangled = name.rpartition(".")[2].partition("__mutmut_")[0]  # x_function or xǁClassǁmethod
    function = mangled.removeprefix("x_") if mangled.startswith("x_") else ".".join(mangled.split("ǁ")[1:])
    header = next(i for i, line in enumerate(shown) if line.startswith("+++ "))
    before, after = ("\n".join(line[1:].strip() for line in shown[header + 1 :] if line.startswith(sign)) for sign in "-+")
    return Mutant(shown[header].removeprefix("+++ "), function, before, after)


def verdict(total: int, survivors: Sequence[Mutant], listed: Sequence[Mutant]) -> int:
    """Says what is wrong, and in its last line how it went. An entry of the list stands for one mutant."""
    unlisted, stale = Counter(survivors) - Counter(listed), Counter(listed) - Counter(survivors)
    for mutant in unlisted.elements():
        print(f"SURVIVED: {mutant}")
    for mutant in stale.elements():
        print(f"STALE, listed in {LIST.name} but no survivor: {mutant}")
    killed = total - len(survivors)
    told = f"{unlisted.total()} not listed as equivalent" if unlisted else "all listed as equivalent"
    outdated = f", {stale.total()} stale entries in the list" if stale else ""
    print(f"{total} mutants, {killed} killed ({killed / total:.1%}), {len(survivors)} survivors: {told}{outdated}")
    return 0 if killed >= ENOUGH * total and not unlisted and not stale else 1


def _mutmut(project: Path, *arguments: str) -> list[str]:
    """What it prints, but for its counts, which overwrite each other: of those some are shown as it goes on."""
    # not `python -m mutmut`, whose workers would import that module a second time
    command = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()", *arguments]
    # A worker is a fork: CUDA would fail its tests, and a thread that was not copied would hang them, whatever the mutant.
    alone = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment = os.environ | alone | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    said, shown = [], 0
    with subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.PIPE, encoding="utf-8") as running:
        assert running.stdout is not None
        for line in running.stdout:
            found = PROGRESS.search(line)
            if found is None:
                said.append(line.rstrip())
            elif (tried := int(found[1])) >= shown + PROGRESS_EVERY:
                shown = tried - tried % PROGRESS_EVERY
                print(f"{tried} of {found[2]} mutants tried", flush=True)
    if running.returncode != 0:
        said_last = "\n".join(said[-LINES_OF_A_FAILURE:])
        raise UserError(f"`mutmut {' '.join(arguments)}` ended with {running.returncode}:\n{said_last}")
    return said


if __name__ == "__main__":
    sys.exit(attempt("mutants", lambda: main(sys.argv[1:])))
