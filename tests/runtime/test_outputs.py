"""metrics.json, curve.csv and the lines of progress: exact bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf.runtime import outputs, progress


def test_a_curve_has_step_first_and_blanks_for_what_is_not_there_or_no_number(tmp_path: Path) -> None:
    rows = [
        {"loss": 0.1, "step": 1},
        {"step": 2, "loss": float("nan"), "score": 1 / 3, "done": True},
        {"step": 3, "name": "a,b"},
    ]
    outputs.write_curve(tmp_path / "curve.csv", rows)
    assert (tmp_path / "curve.csv").read_bytes() == (
        b'step,loss,score,done,name\n1,0.1,,,\n2,,0.3333333333333333,1,\n3,,,,"a,b"\n'
    )


def test_a_curve_without_rows_is_its_header(tmp_path: Path) -> None:
    outputs.write_curve(tmp_path / "curve.csv", [])
    assert (tmp_path / "curve.csv").read_bytes() == b"step\n"


def test_metrics_keep_their_order_and_refuse_what_is_no_number(tmp_path: Path) -> None:
    outputs.write_metrics(tmp_path / "metrics.json", {"b": 1, "a": {"word": "é"}})
    assert (tmp_path / "metrics.json").read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": {\n    "word": "é"\n  }\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        outputs.write_metrics(tmp_path / "metrics.json", {"loss": float("nan")})


def test_the_numbers_of_nested_metrics_have_names_with_slashes() -> None:
    assert outputs.numbers({"a": {"b": 1, "why": "steps"}, "c": 2.5}, "ppo/") == {"ppo/a/b": 1.0, "ppo/c": 2.5}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (45296, "12:34:56")]
)
def test_a_clock_reads_hours_minutes_seconds(seconds: float, text: str) -> None:
    assert progress.clock(seconds) == text


def test_a_line_says_how_far_how_long_and_the_main_numbers() -> None:
    row = {"step": 10, "score": 1.23456, "kl": 0.5, "length": 20, "more": 1.0}
    expected = "ppo 10/40 (25%), 0:30 gone, 1:30 to go: score 1.235, kl 0.5, length 20"  # 3 s a step, 30 steps left
    assert progress.line(row, 40, "ppo", elapsed=30.0) == expected


def test_progress_passes_every_row_on_as_it_comes_and_ends_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    made: list[int] = []

    def rows() -> Iterator[dict[str, float]]:
        for step in (1, 2, 3):
            made.append(step)
            yield {"step": step, "loss": 1.0}

    shown = progress.show(rows(), 3, "sft")
    assert next(shown)["step"] == 1
    assert made == [1], "no row is made before it is asked for"
    assert [row["step"] for row in shown] == [2, 3]
    assert capsys.readouterr().out.splitlines()[-1].startswith("sft 3/3 (100%)")
