"""Runs over seeds, and where one more would fall: formulas by hand and by the printed tables, and by simulation."""

from __future__ import annotations

from dataclasses import asdict
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from rlhf.errors import UserError
from rlhf.runtime.outputs import write_metrics
from rlhf.runtime.reference import (
    HEADLINE,
    Spread,
    check_comparable,
    interval,
    read_reference,
    read_run,
    reference_of,
    spread_of,
    standard_error,
    student,
)
from rlhf.runtime.verify import out_of_place
from tests.runtime.runs import PROMPTS, evaluation, model, write_run

SCORE, RATE, ENDED = "evaluate.ppo.gold_score", "evaluate.ppo.win_rate.mean", "evaluate.ppo.ended"


@pytest.mark.parametrize(
    ("level", "degrees", "table"),
    [
        (0.5, 1, 1.0),  # Cauchy: half of it lies within 1
        (0.99, 1, 63.657),
        (0.99, 2, 9.925),
        (0.999, 3, 12.924),
        (0.95, 4, 2.776),
        (0.99, 5, 4.032),
        (0.999, 5, 6.869),
        (0.95, 10, 2.228),
        (0.99, 30, 2.750),
        (0.95, 120, 1.980),
    ],
)
def test_students_t_is_that_of_the_printed_tables(level: float, degrees: int, table: float) -> None:
    assert student(level, degrees) == pytest.approx(table, abs=6e-4)


def test_an_interval_is_students_for_one_more_draw() -> None:
    # 1, 2, 3: mean 2, s = 1, t(99 %, 2 degrees of freedom) = 9.925, times sqrt(1 + 1/3) = 1.1547
    spread = spread_of("base.loss", [{"base.loss": value} for value in (1.0, 2.0, 3.0)])
    assert spread == Spread(2.0, 1.0, 0.0)
    assert interval("base.loss", spread, 3, 0.99) == pytest.approx((2 - 11.4604, 2 + 11.4604), abs=1e-3)


def test_an_interval_ends_where_the_figure_must() -> None:
    wide = Spread(0.8, 1.0, 0.0)
    assert interval(RATE, wide, 3, 0.99) == interval(ENDED, wide, 3, 0.99) == (0.0, 1.0)
    assert interval("evaluate.ppo.response_tokens", wide, 3, 0.99)[0] == 0.0
    assert interval(SCORE, wide, 3, 0.99)[0] < 0


def test_the_floor_is_the_standard_error_over_prompts(tmp_path: Path) -> None:
    metrics = read_run(write_run(tmp_path, 0, evaluation(ppo=model(ended=629 / PROMPTS)))).metrics
    for stated in (SCORE, RATE):  # ± 0.05 at 95 %
        assert standard_error(stated, metrics) == pytest.approx(0.05 / 1.96, rel=1e-4)
    share = (629 + 1) / (PROMPTS + 2)
    assert standard_error(ENDED, metrics) == pytest.approx(sqrt(share * (1 - share) / (PROMPTS + 2)))
    # 200 answers of 631 tied: of another kind than a headline, so that no floor is known
    assert spread_of("evaluate.ppo.ties", [metrics, metrics]) == Spread(pytest.approx(0.1), 0.0, 0.0)


def test_a_reference_holds_what_moves_with_the_seed(tmp_path: Path) -> None:
    ppos = [model(gold_score=2.0), model(gold_score=2.2)]
    runs = [read_run(write_run(tmp_path / str(i), i, evaluation(630 + i, ppo=ppo), 0.4 + i)) for i, ppo in enumerate(ppos)]
    reference = reference_of(runs)
    assert reference.seeds == [0, 1]
    assert reference.settings == {"ppo.lr": 0.1}
    # no lr, which is a setting, no step and prompts, which are counts, and no ends of intervals
    models = [f"evaluate.{name}.{figure}" for name in ("ppo", "dpo") for figure in ("gold_score", "win_rate.mean", "ended")]
    assert sorted(reference.figures) == sorted(["base.validation_loss", *models])
    assert reference.figures[SCORE].mean == pytest.approx(2.1)
    assert reference.figures[SCORE].sd == pytest.approx(0.1 * sqrt(2))
    write_metrics(tmp_path / "reference.json", asdict(reference))
    assert read_reference(tmp_path / "reference.json") == reference


@pytest.mark.parametrize(
    ("name", "judged"),
    [
        ("evaluate.ppo.gold_score", True),
        ("evaluate.best_of_4.win_rate.mean", False),
        ("evaluate.dpo.greedy.gold_score", True),
        ("evaluate.sft.greedy.ended", False),
        ("reward.test.accuracy", True),
        ("reward.train.accuracy", False),
        ("sft.validation_loss", True),
        ("dpo.validation_loss", False),
        ("evaluate.ppo.gold_interval.mean", False),
        ("evaluate.yardsticks.perfect.gold_score", False),
    ],
)
def test_the_headlines_are_a_short_list(name: str, judged: bool) -> None:
    assert bool(HEADLINE.fullmatch(name)) is judged


@pytest.mark.parametrize("seeds", [3, 6])
def test_a_family_of_figures_fails_an_honest_draw_as_often_as_stated(seeds: int) -> None:
    """Independent figures, for which Bonferroni's bound is all but reached: 1 % of 3,000 is 30, with a deviation of 5.4."""
    families, figures = 3000, 10
    draws = np.random.default_rng(0).normal(5.0, 2.0, size=(families, seeds + 1, figures))
    names = [f"evaluate.model_{i}.kl_per_response" for i in range(figures)]
    failed = 0
    for family in draws:
        rows = [dict(zip(names, row, strict=True)) for row in family.tolist()]
        means, sds = family[:-1].mean(0).tolist(), family[:-1].std(0, ddof=1).tolist()
        spreads = {name: Spread(mean, sd, 0.0) for name, mean, sd in zip(names, means, sds, strict=True)}
        failed += bool(out_of_place(rows[-1], spreads, seeds, 1 - 0.01 / figures))
    assert 30 - 4 * 5.4 < failed < 30 + 4 * 5.4


def test_a_planted_shift_fails_and_the_line_says_all() -> None:
    spreads = {SCORE: spread_of(SCORE, [model_metrics(value) for value in (2.4, 2.5, 2.6, 2.5, 2.45, 2.55)])}
    assert out_of_place({SCORE: 2.6}, spreads, 6, 0.9998) == []
    [line] = out_of_place({SCORE: 1.5}, spreads, 6, 0.9998)
    low, high = interval(SCORE, spreads[SCORE], 6, 0.9998)
    expected = f"gold_score is 1.5, outside {low:.4g} … {high:.4g} (mean of 6 seeds 2.5)"
    assert line == f"artifacts/evaluate/metrics.json: ppo.{expected}"
    [line] = out_of_place({}, spreads, 6, 0.9998)
    assert line == "artifacts/evaluate/metrics.json: ppo.gold_score is missing (mean of 6 seeds 2.5)"


def model_metrics(score: float) -> dict[str, float]:
    beside = "evaluate.ppo.gold_interval"
    return {SCORE: score, f"{beside}.low": score - 0.05, f"{beside}.high": score + 0.05}


def test_seeds_that_agree_do_not_forbid_one_response() -> None:
    metrics = {ENDED: 1.0, "evaluate.yardsticks.prompts": PROMPTS}
    spreads = {ENDED: spread_of(ENDED, [metrics] * 6)}
    assert spreads[ENDED].sd == 0
    assert out_of_place({ENDED: 1 - 1 / PROMPTS}, spreads, 6, 0.99) == []
    assert len(out_of_place({ENDED: 1 - 40 / PROMPTS}, spreads, 6, 0.99)) == 1


def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", 0, evaluation())
    other = write_run(tmp_path / "other", 1, evaluation(), settings="ppo: {lr: 0.2, kl_ctl: 1}")
    twin = write_run(tmp_path / "twin", 0, evaluation())
    with pytest.raises(UserError, match="at least two runs"):
        reference_of([read_run(first)])
    with pytest.raises(UserError, match=f"{first} and {twin} both have seed 0"):
        check_comparable([read_run(first), read_run(twin)])
    with pytest.raises(UserError) as refused:
        check_comparable([read_run(first), read_run(other)])
    assert f"ppo.lr: 0.2 in {other}/params.yaml, 0.1 in {first}/params.yaml" in str(refused.value)
    assert f"ppo.kl_ctl: 1 in {other}/params.yaml, nothing in {first}/params.yaml" in str(refused.value)


def test_a_run_is_named_by_its_repository_or_its_artifacts_and_must_be_complete(tmp_path: Path) -> None:
    root = write_run(tmp_path, 3, evaluation())
    assert read_run(root) == read_run(root / "artifacts")
    assert read_run(root).seed == 3
    missing = root / "artifacts" / "base" / "metrics.json"
    missing.unlink()
    with pytest.raises(UserError, match=f"{missing} is missing"):
        read_run(root)
    with pytest.raises(UserError, match=r"nowhere/dvc\.yaml is missing"):
        read_run(tmp_path / "nowhere")
