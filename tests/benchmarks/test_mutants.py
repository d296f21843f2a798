"""Mutants: mutmut's survivors are found in a real run, and only what is listed, and still survives, passes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmarks.mutants import Mutant

from benchmarks import mutants
from rlhf.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
FILE = "src/toy.py"
AT_MOST = Mutant(FILE, "Box.holds", "return size <= 10", "return size < 10")
TEN = Mutant(FILE, "Box.holds", "return size <= 10", "return size <= 11")

SETTINGS = """
[tool.mutmut]
source_paths = ["src"]
pytest_add_cli_args_test_selection = ["tests"]
"""
CODE = """
def double(x):
    return x + x


def never_called(x):
    return x


class Box:
    def holds(self, size):
        return size <= 10
"""
TESTS = """
from toy import Box, double


def test():
    assert double(3) == 6
    assert Box().holds(3)
"""


def write_project(folder: Path, tests: str) -> Path:
    for name, text in {"pyproject.toml": SETTINGS, FILE: CODE, "tests/test_toy.py": tests}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_survivors_are_told_by_what_they_change(tmp_path: Path) -> None:
    total, survivors = mutants.mutate(write_project(tmp_path, TESTS), 1)
    assert total == 3
    assert set(survivors) == {AT_MOST, TEN}


def test_tests_that_fail_without_a_mutant_find_out_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^`mutmut run --max-children 1` ended with 1:\n(.*\n)*.*assert 6 == 7"):
        mutants.mutate(write_project(tmp_path, TESTS.replace("== 6", "== 7")), 1)


@pytest.mark.parametrize(
    ("total", "survivors", "listed", "passes", "says"),
    [
        (40, [], [], True, "40 mutants, 40 killed (100.0%), 0 survivors: all listed as equivalent"),
        (40, [TEN, AT_MOST], [AT_MOST, TEN], True, "40 mutants, 38 killed (95.0%), 2 survivors: all listed as equivalent"),
        (39, [TEN, AT_MOST], [AT_MOST, TEN], False, "39 mutants, 37 killed (94.9%), 2 survivors: all listed as equivalent"),
        (99, [TEN], [], False, "99 mutants, 98 killed (99.0%), 1 survivors: 1 not listed as equivalent"),
        (99, [TEN, TEN], [TEN], False, "99 mutants, 97 killed (98.0%), 2 survivors: 1 not listed as equivalent"),
        (
            99,
            [TEN],
            [TEN, AT_MOST],
            False,
            "99 mutants, 98 killed (99.0%), 1 survivors: all listed as equivalent, 1 stale entries in the list",
        ),
    ],
)
def test_verdict(
    total: int, survivors: list[Mutant], listed: list[Mutant], passes: bool, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mutants.verdict(total, survivors, listed) == (0 if passes else 1)
    assert capsys.readouterr().out.splitlines()[-1] == says


def test_what_is_wrong_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    mutants.verdict(99, [TEN], [AT_MOST])
    assert capsys.readouterr().out.splitlines()[:6] == [
        "SURVIVED: src/toy.py, Box.holds",
        "    - return size <= 10",
        "    + return size <= 11",
        "STALE, listed in equivalent_mutants.toml but no survivor: src/toy.py, Box.holds",
        "    - return size <= 10",
        "    + return size < 10",
    ]


def test_a_change_of_several_lines_is_read_whole() -> None:
    """A line that itself starts with a sign is no header, and indentation does not tell mutants apart."""
    shown = [
        "# package.module.x__private__mutmut_12: survived",
        "--- src/package/module.py",
        "+++ src/package/module.py",
        "@@ -1,4 +1,3 @@",
        "     total = (",
        "-        first",
        "-        + second",
        "+        first - second",
        "     )",
    ]
    found = mutants.read_mutant("package.module.x__private__mutmut_12", shown)
    assert found == Mutant("src/package/module.py", "_private", "first\n+ second", "first - second")


@pytest.mark.parametrize("mutant", mutants.equivalents(), ids=str)
def test_every_listed_mutant_has_a_place_and_a_reason(mutant: Mutant) -> None:
    text = re.sub(r"\n\s+", "\n", (ROOT / mutant.file).read_text(encoding="utf-8"))
    assert text.count(f"\n{mutant.before}\n") == 1
    assert f"\ndef {mutant.function}(" in text
    assert mutant.before != mutant.after
    assert mutant.reason
