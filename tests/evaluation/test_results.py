"""What an evaluation leaves: tables and pictures that say the same twice, and answers that can be read again."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf.data.files import read_records
from rlhf.evaluation import report
from rlhf.evaluation.answers import GREEDY, INDEPENDENT, SAMPLED, Answers, Contestant
from rlhf.evaluation.contest import about_the_exam, metrics_of, yardsticks_of
from rlhf.evaluation.exam import Judges
from rlhf.evaluation.figures import Yardstick
from rlhf.evaluation.paths import Way, laws_along, on_the_way, snapshots_in
from rlhf.evaluation.points import Point
from rlhf.evaluation.raters import GOLD_FIGURES
from rlhf.evaluation.results import write_results
from rlhf.evaluation.standings import best_of_n_points
from rlhf.evaluation.written import POOL, RESPONSES, Samples, marks_in, read_answers
from tests.evaluation.conftest import PROMPTS, SEED, Table, everybody, of

PICTURES = ["frontier.png", "overoptimisation.png", "reward_and_gold.png", "scores.png"]


def write(
    table: Table, judges: Judges, yardsticks: dict[str, Yardstick], pool: list[Answers], folder: Path
) -> dict[str, Any]:
    """As the stage does; ppo and dpo are base and SFT by other names."""
    policies = {"base": table.policies["base"], "sft": table.policies["sft"]}
    policies |= {"ppo": policies["base"], "dpo": policies["sft"]}
    contestants = everybody(replace(table, policies=policies), judges, yardsticks, pool)
    sampled = yardsticks[SAMPLED]
    snapshots = list(on_the_way({5: policies["sft"], 10: policies["base"]}, table.exam, judges, sampled, SEED))
    kept = Way(snapshots, last_step=15)
    about = about_the_exam(contestants, table.exam, judges, sampled, table.settings, SEED)
    folder.mkdir()
    return write_results(folder, table.exam, judges, contestants, kept, pool, about, table.settings, SEED)


@pytest.fixture(scope="module")
def written(
    table: Table, yardsticks: dict[str, Yardstick], pool: list[Answers], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("results") / "first"
    return folder, write(table, table.judges, yardsticks, pool, folder)


def test_a_second_time_everything_is_the_same_to_the_byte(
    written: tuple[Path, dict[str, Any]],
    table: Table,
    yardsticks: dict[str, Yardstick],
    pool: list[Answers],
    tmp_path: Path,
) -> None:
    first, metrics = written
    assert write(table, table.judges, yardsticks, pool, tmp_path / "second") == metrics
    assert sorted(path.name for path in first.iterdir() if path.suffix == ".png") == PICTURES
    for path in first.iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


def test_the_table_shows_every_model(contestants: list[Contestant], metrics: dict[str, Any]) -> None:
    lines = report.table(metrics).splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:7]] == [
        ["| base", "sampled"],
        ["| SFT", "sampled"],
        ["| best of 3", "sampled"],
        ["| base", "greedy"],
        ["| SFT", "greedy"],
    ]
    assert len({line.count("|") for line in lines[:7]}) == 1
    assert "gold rater" in report.table(metrics)


def test_a_law_is_shown_beside_what_was_seen_and_how_well_it_fits(metrics: dict[str, Any]) -> None:
    turned = {
        "best": {"index": 4, "kl": 9.0, "gain": {"mean": 1.5, "low": 1.25, "high": 1.75}},
        "peak": {name: {"mean": 4.0, "low": 3.0, "high": 5.0} for name in ("gain", "kl", "distance")},
        "fallen": {"mean": 0.5, "low": 0.25, "high": 0.75},
        "alpha": {"mean": 2.0, "low": 1.0, "high": 3.0},
        "beta": {"mean": 0.5, "low": 0.25, "high": 0.75},
        "checkpoints": 7,
        "residual": 0.125,
        "chance": 0.25,
        "statement": "the peak lies at a KL of 4",
    }
    laws = {"best_of_n": {"statement": "a fit needs more"}, "snapshots": turned}
    page = report.table(metrics | {"yardsticks": metrics["yardsticks"] | {"overoptimisation": laws}}).splitlines()
    header = next(i for i, line in enumerate(page) if line.startswith("| over-optimisation |"))
    peak, law = "4.00 [3.00, 5.00]", "2.00 [1.00, 3.00] | 0.50 [0.25, 0.75] | 0.12 | 0.25"
    assert (
        page[header + 2]
        == f"| PPO, on its way | 7 | 1.50 [1.25, 1.75] | 9.00 | 0.50 [0.25, 0.75] | {peak} | {peak} | {law} |"
    )
    assert page[header].count("|") == page[header + 2].count("|")
    assert page[header + 4 : header + 6] == ["best of n: a fit needs more.", "PPO, on its way: the peak lies at a KL of 4."]


def test_every_answer_is_read_again_as_it_was(
    written: tuple[Path, dict[str, Any]], table: Table, contestants: list[Contestant]
) -> None:
    prompts, answers = read_answers(written[0] / RESPONSES)
    assert prompts == table.exam.prompts
    assert ("best_of_3", SAMPLED) in answers
    for decoding, ours in ((SAMPLED, of(contestants, "base").answers), (GREEDY, of(contestants, "base", GREEDY).answers)):
        theirs = answers["base", decoding]
        assert theirs.texts == ours.texts
        for name in ("ended", "tokens", "rewards", "kl"):
            assert (getattr(theirs, name) == getattr(ours, name)).all(), name
        assert {name: list(values) for name, values in theirs.gold.items()} == {k: list(v) for k, v in ours.gold.items()}
    independent = of(contestants, "base").independent
    assert independent is not None
    assert answers["base", INDEPENDENT].texts == independent.texts != of(contestants, "base").answers.texts


def test_the_pool_tells_what_each_sample_was_worth(written: tuple[Path, dict[str, Any]], pool: list[Answers]) -> None:
    told = read_records(written[0] / POOL, Samples)
    for i, one in enumerate(told):
        assert one.reward_score == [answers.rewards[i] for answers in pool]
        assert one.judged == [answers.gold["gold_score"][i] for answers in pool]
    rivals = np.array([one.judged[0] for one in told])
    points = best_of_n_points(told, rivals, seed=0)
    assert [point.setting["n"] for point in points] == ["2", "4"]  # of 5
    (two,) = points[0].runs.values()
    pairs = [(a, b) for a in range(5) for b in range(a)]
    by_hand = [np.mean([max(one.reward_score[a], one.reward_score[b]) for a, b in pairs]) for one in told]
    assert two.reward == pytest.approx(np.array(by_hand))


def test_the_frontier_holds_every_point_and_marks_those_that_none_beats(written: tuple[Path, dict[str, Any]]) -> None:
    with (written[0] / "frontier.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["setting"]) for row in rows] == [
        ("sft", ""),
        ("best_of_n", "n=2"),
        ("best_of_n", "n=4"),
        ("ppo", ""),
        ("dpo", ""),
        ("snapshots", "step=5"),
        ("snapshots", "step=10"),
    ]
    kept = sorted((float(row["kl"]), float(row["judged"])) for row in rows if row["pareto"] == "1")
    assert all(b >= a for (_, a), (_, b) in pairwise(kept))
    assert kept[-1][1] == max(float(row["judged"]) for row in rows)
    for row in rows:
        assert float(row["judged_low"]) <= float(row["judged"]) <= float(row["judged_high"])


def test_the_summary_is_short_and_of_the_same_figures(written: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = written
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary) == ["sft", "best_of_3", "ppo", "dpo"]
    assert summary["ppo"]["gold_score"] == metrics["ppo"]["gold_score"]
    assert summary["dpo"]["win_rate"] == metrics["dpo"]["win_rate"]["mean"]


def test_laws_are_told_of_and_too_few_points_are_no_error(written: tuple[Path, dict[str, Any]]) -> None:
    laws = written[1]["yardsticks"]["overoptimisation"]
    assert json.loads(json.dumps(laws, allow_nan=False)) == laws
    assert "has 2 checkpoints of different KL above 0" in laws["best_of_n"]["statement"]


def test_without_a_gold_rater_the_reward_model_judges_and_everything_says_so(
    table: Table, pool: list[Answers], tmp_path: Path
) -> None:
    judges = replace(table.judges, rater=None)
    yardsticks = yardsticks_of(table.exam, judges, table.settings, SEED)
    blind = [replace(answers, gold={}) for answers in pool]
    metrics = write(table, judges, yardsticks, blind, tmp_path / "results")
    contestants = everybody(table, judges, yardsticks, blind)
    about = about_the_exam(contestants, table.exam, judges, yardsticks[SAMPLED], table.settings, SEED)
    figures = metrics_of(contestants, about)
    assert figures["yardsticks"]["judged_by"] == metrics["yardsticks"]["judged_by"] == "reward model"
    assert not {*GOLD_FIGURES, "share_closed", "gold_interval"} & {key for model in figures.values() for key in model}
    rewards, theirs = of(contestants, "base").answers.rewards, yardsticks[SAMPLED].opponent.rewards
    assert figures["base"]["wins"] == np.mean(rewards > theirs)
    page = (tmp_path / "results" / "table.md").read_text()
    assert "judged by the reward model" in page
    assert "gold" not in page
    assert "reward score" in report.side_by_side(table.exam.prompts, contestants, [0])
    assert sorted(path.name for path in (tmp_path / "results").glob("*.png")) == ["frontier.png", "scores.png"]


def test_prompts_are_shown_beside_every_answer(contestants: list[Contestant], table: Table) -> None:
    assert report.side_by_side(table.exam.prompts, contestants, list(range(3))).count("> **user**") == 3
    assert len(table.exam.prompts) == PROMPTS


def test_a_path_without_a_point_has_no_law(written: tuple[Path, dict[str, Any]]) -> None:
    _, answers = read_answers(written[0] / RESPONSES)
    sft = marks_in(answers, "sft")
    steps = [Point("snapshots", {"step": str(step)}, {0: marks_in(answers, "base")}) for step in (5, 10)]
    laws, said = laws_along(steps, sft, 20, SEED)
    assert (laws, list(said)) == ({}, ["snapshots"])
    assert "needs at least 3" in said["snapshots"]["statement"].replace("\n", " ")


def test_a_snapshot_of_the_last_step_is_the_policy_itself(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        (tmp_path / "snapshots" / f"step_{step:04d}").mkdir(parents=True)
    (tmp_path / "metrics.json").write_text(json.dumps({"step": 15}))
    assert snapshots_in(tmp_path) == {step: tmp_path / "snapshots" / f"step_{step:04d}" for step in (5, 10)}
    (tmp_path / "metrics.json").write_text(json.dumps({"step": 10}))  # the step that was kept as the best
    assert sorted(snapshots_in(tmp_path)) == [5, 15]
