"""docs/correctness.md has all its rows, and every test it names is one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
ROWS = re.findall(
    r"^\| (\d+) \|.*\| (.*) \|$", (TESTS.parent / "docs/correctness.md").read_text(encoding="utf-8"), re.MULTILINE
)


@cache
def functions_of(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)}


def test_the_details_are_numbered_without_a_gap() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 37))


def test_every_test_it_names_exists() -> None:
    for number, cell in ROWS:
        named = re.findall(r"`(\S+)::(test_\w+)`", cell)
        assert named or cell == "—", f"row {number} names no test and has no dash"
        for file, test in named:
            assert test in functions_of(TESTS / file), f"row {number}: {file} has no {test}"
