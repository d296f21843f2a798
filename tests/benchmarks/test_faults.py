"""The list of faults to plant: each still has its place in the code, and the runner tells a noticed one from another."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import faults

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("fault", faults.faults(), ids=lambda fault: fault.name)
def test_every_fault_has_one_place_and_changes_it(fault: faults.Fault) -> None:
    text = (ROOT / fault.file).read_text(encoding="utf-8")
    assert text.count(fault.find) == 1
    assert fault.find != fault.replace
    assert all((ROOT / test).is_file() for test in fault.tests)


def test_there_are_enough_and_each_is_named_once() -> None:
    names = [fault.name for fault in faults.faults()]
    assert len(names) == len(set(names)) >= 25


@pytest.mark.parametrize(
    ("assertion", "seen"), [("assert answer() == 42", True), ("assert answer()", False), ("assert answer(", False)]
)
def test_only_failing_tests_notice_a_fault(tmp_path: Path, assertion: str, seen: bool) -> None:
    """Tests that cannot even be read have noticed nothing."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "question.py").write_text("def answer():\n    return 42\n")
    (tmp_path / "test_question.py").write_text(f"from question import answer\n\n\ndef test() -> None:\n    {assertion}\n")
    fault = faults.Fault("another answer", "src/question.py", "42", "43", ["test_question.py"])
    assert faults.noticed(tmp_path, fault) is seen
    assert (tmp_path / "src" / "question.py").read_text() == "def answer():\n    return 42\n"
