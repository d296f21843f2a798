"""docs/parity.md names every test of this folder, and no other; and our side of them runs where theirs is not installed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.parity import test_dpo, test_reward

HERE = Path(__file__).parent
TEXT = (HERE.parents[1] / "docs" / "parity.md").read_text(encoding="utf-8")


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        f"{path.name}::{node.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_what_is_compared_is_what_is_said() -> None:
    there = set.union(*(names_in(path) for path in HERE.glob("test_*.py") if path != Path(__file__)))
    assert set(re.findall(r"`(\S+::test_\w+)`", TEXT)) == there


def test_our_side_of_a_step_still_runs() -> None:
    """The comparisons are skipped without TRL: what they call must not fall out of step unseen."""
    step = test_dpo.our_step(test_dpo.ROWS, "sigmoid")
    assert step.loss > 0
    assert step.margin != 0
    assert float(step.moved.abs().max()) > 0
    loss, moved = test_reward.our_step(test_reward.MARGINS)
    assert loss > 0
    assert float(moved.abs().max()) > 0
