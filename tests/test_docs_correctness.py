"""docs/correctness.md has all its rows, every test it names is one, and it runs over what its row says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TABLE = (TESTS.parent / "docs/correctness.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \| ([^|]*) \|$", TABLE, re.MULTILINE)
# What a row may run on, and what one of its tests must then take and use, each of the groups in one way. Models that
# pytest makes for a test of either architecture are taken by name.
ARCHITECTURE, PRECISION, DTYPE = {"architecture", "policy", "classifier", "saved"}, {"precision"}, {"dtype"}
RUNS_ON: dict[str, list[set[str]]] = {
    "gpt2, llama × fp32, bf16": [ARCHITECTURE, PRECISION],
    "gpt2, llama × fp32": [ARCHITECTURE],
    "llama × fp32, bf16": [PRECISION],
    "llama × fp32": [],
    "gpt2 × bf16": [ARCHITECTURE, PRECISION],
    "maths: bf16 … fp64": [DTYPE],
    "maths: fp64": [],
    "no model": [],
}


@cache
def functions_of(path: Path) -> dict[str, set[str]]:
    """The functions of a file, and which of its arguments each of them uses."""
    found = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)]
    return {node.name: {argument.arg for argument in node.args.args} & used_in(node.body) for node in found}


def used_in(body: list[ast.stmt]) -> set[str]:
    return {node.id for line in body for node in ast.walk(line) if isinstance(node, ast.Name)}


def named_in(cell: str) -> list[tuple[str, str]]:
    return re.findall(r"`(\S+)::(test_\w+)`", cell)


def test_the_details_are_numbered_without_a_gap() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, 37))


@pytest.mark.parametrize(("number", "on", "cell"), ROWS, ids=[row[0] for row in ROWS])
def test_every_test_it_names_exists_and_runs_on_what_the_row_says(number: str, on: str, cell: str) -> None:
    named = named_in(cell)
    assert len(named) == cell.count("::") > 0
    for file, test in named:
        assert test in functions_of(TESTS / file), f"row {number}: {file} has no {test}"
    used = [functions_of(TESTS / file)[test] for file, test in named]
    for place in on.split("; "):
        assert any(all(names & group for group in RUNS_ON[place]) for names in used), f"row {number}: {place}"
        of_maths = [file for file, _ in named if file.startswith("maths/")]
        assert of_maths or not place.startswith("maths"), f"row {number} names no test of the maths"


def test_the_two_axes_are_what_the_document_calls_them() -> None:
    """Fixtures of everyone's conftest, with both values each; no other conftest narrows them."""
    for axis, values in (("architecture", ["llama", "gpt2"]), ("precision", ["float32", "bfloat16"])):
        defined = [path for path in TESTS.rglob("conftest.py") if axis in functions_of(path)]
        assert defined == [TESTS / "conftest.py"]
        tree = ast.parse(defined[0].read_text(encoding="utf-8"))
        (fixture,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == axis]
        (decorator,) = fixture.decorator_list
        assert isinstance(decorator, ast.Call)
        assert [ast.literal_eval(keyword.value) for keyword in decorator.keywords] == [values]
