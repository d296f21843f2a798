"""Runs side by side: whose interval knows of seeds and of prompts, and what it prints."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from benchmarks.over_seeds import main, over_seeds

from rlhf.errors import UserError
from rlhf.evaluation.statistics import Interval
from tests.runtime.runs import evaluation, model, write_run


def width(found: Interval) -> float:
    return found.high - found.low


def test_runs_that_agree_differ_by_their_prompts_alone() -> None:
    """S runs of N prompts of which a half wins are S N coins: 2 · 1.96 · sqrt(1 / 4 / (S N)) wide."""
    found = over_seeds(np.array([[0.5, 0.0, 0.5]] * 3), np.array([600] * 3))
    assert found.mean == 0.5
    assert width(found) == pytest.approx(2 * 1.96 * sqrt(0.25 / 1800), rel=0.05)


def test_runs_of_countless_prompts_differ_by_their_seeds_alone() -> None:
    """Ten of 0.4 and ten of 0.6: the mean of twenty draws of these, 2 · 1.96 · 0.1 / sqrt(20) wide."""
    shares = np.array([[rate, 0.0, 1 - rate] for rate in (0.4, 0.6) * 10])
    found = over_seeds(shares, np.array([10**7] * 20))
    assert found.mean == pytest.approx(0.5)
    assert width(found) == pytest.approx(2 * 1.96 * 0.1 / sqrt(20), rel=0.1)


def test_a_tie_is_half_a_win() -> None:
    found = over_seeds(np.array([[0.0, 1.0, 0.0]] * 2), np.array([100, 50]))
    assert (found.low, found.mean, found.high) == (0.5, 0.5, 0.5)


def test_the_table_has_a_row_a_model_and_a_figure_a_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sft = model(win_rate=0.5, gold_score=0.5, ended=0.75)
    first = write_run(tmp_path / "0", 0, evaluation(600, sft=sft | {"greedy": model(0.5)}))
    second = write_run(tmp_path / "1", 7, evaluation(500, sft=sft | {"gold_score": 0.625, "greedy": model(0.5)}))
    assert main([str(first), str(second / "artifacts")]) == 0
    about, blank, head, rule, ppo, dpo, row = capsys.readouterr().out.splitlines()
    assert about.startswith("Seeds 0 / 7; 600 / 500 test prompts.")
    assert blank == ""
    assert len({line.count("|") for line in (head, rule, ppo, dpo, row)}) == 1
    assert ppo.startswith("| ppo | 2.50 / 2.50 |  | 0.800 [0.7")
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[:3] == ["", "sft", "0.50 / 0.62"]
    assert cells[4].endswith("] (0.50 / 0.50)")
    assert cells[7:9] == ["0.750 / 0.750", "2.50 / 2.50"]


def test_runs_that_do_not_match_are_refused(tmp_path: Path) -> None:
    first = write_run(tmp_path / "0", 0, evaluation())
    other = write_run(tmp_path / "1", 1, evaluation(), settings="ppo: {lr: 0.2}")
    with pytest.raises(UserError, match="only the seed may differ"):
        main([str(first), str(other)])
    with pytest.raises(UserError, match="at least two"):
        main([str(first)])
