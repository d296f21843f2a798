"""What a sweep tells at its end, read from the files that its jobs left."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from rlhf.errors import UserError
from rlhf.evaluation.raters import GOLD_FIGURES
from rlhf.evaluation.swept.held_against import held_by
from rlhf.evaluation.swept.measures import rank_agreement
from rlhf.evaluation.swept.read import fall_in, read_sweep
from rlhf.evaluation.swept.report import report_on
from rlhf.evaluation.written import RESPONSES, read_answers
from tests.evaluation.swept.conftest import Books


@pytest.fixture
def told(books: Books) -> str:
    return report_on(books.root, [books.sweep], books.sweep)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def test_jobs_that_differ_in_the_seed_alone_are_runs_of_one_point(books: Books) -> None:
    prompts, _ = read_answers(books.root / "artifacts" / "evaluate" / RESPONSES)
    found = read_sweep(books.root, books.sweep, prompts, "gold rater")
    assert [(one.point.method, dict(one.point.setting), list(one.point.runs)) for one in found] == [
        ("ppo", {"ppo.kl_ctl": "0.1"}, [0, 1]),
        ("ppo", {"ppo.kl_ctl": "0.3"}, [0, 1]),
    ]
    assert [one.seconds for one in found] == [{0: 10.0, 1: 11.0}, {0: 12.0, 1: 13.0}]
    assert [(one.fall, one.steps) for one in found] == [({0: 0.25, 1: 0.25}, {0: 15, 1: 15})] * 2
    assert found[0].point.over_seeds("judged").shape == (2, len(prompts))


def test_the_furthest_fall_is_from_the_highest_so_far() -> None:
    curve = [{"gold": value, "reward": "9"} for value in ("1", "", "4", "2.5", "5", "4.5")]
    assert fall_in(curve, "gold") == 1.5
    assert fall_in(curve, "reward") == 0.0
    assert fall_in(curve, "loss") is None
    assert fall_in(curve, None) is None


def test_what_other_policies_answered_may_change_but_not_what_sft_did(books: Books, tmp_path: Path) -> None:
    file = books.root / "artifacts" / "evaluate" / RESPONSES
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["sampled"]["ppo"]["gold_score"] += 1.0
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report_on(books.root, [books.sweep], tmp_path / "out")
    rows[0]["sampled"]["sft"]["gold_score"] += 1.0
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        UserError, match=r"now was held against another SFT's answers in artifacts/evaluate/responses\.jsonl"
    ):
        report_on(books.root, [books.sweep], tmp_path / "again")


def test_where_the_reward_model_judges_its_score_is_told_once_and_watched(books: Books, tmp_path: Path) -> None:
    for file in [books.root / "artifacts" / "evaluate" / RESPONSES, *books.sweep.glob("*/evaluation/responses.jsonl")]:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for answer in (one for row in rows for key, models in row.items() if key != "prompt" for one in models.values()):
            for axis in GOLD_FIGURES:
                answer.pop(axis)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (books.root / "artifacts" / "evaluate" / "metrics.json").write_text('{"yardsticks": {"judged_by": "reward model"}}')
    sweep = json.loads((books.sweep / "sweep.json").read_text())
    inputs = held_by(books.root, sweep["settings"])
    (books.sweep / "sweep.json").write_text(json.dumps(sweep | {"inputs": inputs}))
    page = report_on(books.root, [books.sweep], tmp_path / "out")
    header, _, *lines = [line for line in page.splitlines() if line.startswith("|")]
    assert header.split(" | ")[1:6] == ["reward score", "win rate against SFT", "at equal length", "KL, nats", "tokens"]
    (ours,) = (line for line in lines if line.startswith("| PPO, kl_ctl 0.1") and "[" in line)
    assert ours.split(" | ")[-2] == "0.50"  # of validation_score, not of the gold score beside it
    assert "judged by the reward model" in page
    assert "PPO climbs this very reward model" in page
    assert "gold" not in page
    assert "reward model's score" not in (tmp_path / "out" / "frontier.html").read_text()


def test_a_seed_that_an_experiment_sets_is_that_of_its_jobs(books: Books) -> None:
    """`-m experiment=a,b`: settings say nothing of seeds, and the sweep has no one seed of its own."""
    book = json.loads((books.sweep / "sweep.json").read_text())
    jobs = [{"experiment": name} for name in "abcde"]
    (books.sweep / "sweep.json").write_text(json.dumps(book | {"jobs": jobs}))
    for number, values in enumerate(jobs):
        file = books.sweep / str(number) / "job.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"settings": values}))
    prompts, _ = read_answers(books.root / "artifacts" / "evaluate" / RESPONSES)
    found = read_sweep(books.root, books.sweep, prompts, "gold rater")
    assert [(one.point.setting, list(one.point.runs)) for one in found] == [
        ({"experiment": name}, [seed]) for name, seed in zip("abcd", (0, 1, 0, 1), strict=True)
    ]


def test_the_table_has_every_point_beside_what_the_repository_has(books: Books, told: str) -> None:
    page = (books.sweep / "sweep.md").read_text()
    names = [
        line.split(" | ")[0].removeprefix("| ").removesuffix(" *") for line in page.splitlines() if line.startswith("| ")
    ]
    assert names[1:8] == [
        "---",
        "SFT",
        "best of 2",
        "best of 4",
        "PPO, in artifacts",
        "DPO, in artifacts",
        "PPO, kl_ctl 0.1",
    ]
    assert "PPO, kl_ctl 0.3" in told
    assert "Bonferroni" in page
    assert "- PPO: 15 rollouts of 128 responses of its own, scored by a reward model that learnt the 4,999 rankings." in page
    assert re.search(r"Of 4 runs \d diverged .*, \d ended below SFT's gold score; 1 jobs failed", page)
    assert "Of a policy that was trained once this compares what lies here" in page, "those in artifacts"


def test_seeds_are_spread_out_in_a_table_of_their_own(books: Books, told: str) -> None:
    lines = (books.sweep / "sweep.md").read_text().splitlines()
    (start,) = [i for i, line in enumerate(lines) if "standard deviation" in line]
    cells = lines[start + 3].split(" | ")
    assert (cells[0], cells[1], cells[3]) == (
        "| PPO, kl_ctl 0.3",
        "2",
        "0.000",
    )  # SFT twice, with the same random numbers


def test_the_frontier_is_written_as_numbers(books: Books, told: str) -> None:
    rows = rows_of(books.sweep / "frontier.csv")
    swept = [row for row in rows if row["setting"].startswith("ppo.kl_ctl")]
    assert [(row["method"], row["setting"], row["seeds"]) for row in swept] == [
        ("ppo", "ppo.kl_ctl=0.1", "2"),
        ("ppo", "ppo.kl_ctl=0.3", "2"),
    ]
    assert float(swept[1]["kl"]) == 0.0  # SFT itself
    assert float(swept[1]["judged"]) == pytest.approx(float(rows[0]["judged"]))
    best = [row for row in rows if not row["behind"]]
    assert len(best) == 1
    assert float(best[0]["judged"]) == max(float(row["judged"]) for row in rows)


def test_all_that_answered_twice_meet_in_the_tournament(books: Books, told: str) -> None:
    rows = rows_of(books.sweep / "tournament.csv")
    theirs = {"base", "SFT", "best of 3", "PPO, in artifacts", "DPO, in artifacts"}
    assert {row["policy"] for row in rows} == theirs | {"PPO, kl_ctl 0.1", "PPO, kl_ctl 0.3"}
    for row in rows:
        for other in rows:
            ours, theirs = float(row[f"against {other['policy']}"]), float(other[f"against {row['policy']}"])
            assert ours + theirs == pytest.approx(1.0)


def test_the_page_needs_no_network_and_the_pictures_are_the_same_twice(books: Books, told: str, tmp_path: Path) -> None:
    page = (books.sweep / "frontier.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert "ppo.kl_ctl = 0.3" in page
    report_on(books.root, [books.sweep], tmp_path / "again")
    for name in ("frontier.png", "by_setting.png", "frontier.html", "sweep.md", "frontier.csv", "tournament.csv"):
        assert (books.sweep / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_a_sweep_over_the_seed_alone_is_one_point_beside_that_of_the_repository(books: Books, tmp_path: Path) -> None:
    book = json.loads((books.sweep / "sweep.json").read_text())
    jobs = [{"seed": str(number)} for number in range(len(book["jobs"]))]
    (books.sweep / "sweep.json").write_text(json.dumps(book | {"jobs": jobs}))
    for number, values in enumerate(jobs):
        file = books.sweep / str(number) / "job.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"settings": values, "seed": number}))
    report_on(books.root, [books.sweep], tmp_path / "seeds")
    (one,) = [row for row in rows_of(tmp_path / "seeds" / "frontier.csv") if row["method"] == "ppo" and not row["setting"]]
    assert one["seeds"] == "4"
    policies = {row["policy"] for row in rows_of(tmp_path / "seeds" / "tournament.csv")}
    assert {"PPO", "PPO, in artifacts"} <= policies


def test_two_sweeps_are_read_side_by_side(books: Books, tmp_path: Path) -> None:
    other = books.root / "sweeps" / "dpo" / "now"
    shutil.copytree(books.sweep, other)
    book = json.loads((other / "sweep.json").read_text())
    jobs = [{"dpo.beta": job["ppo.kl_ctl"], "seed": job["seed"]} for job in book["jobs"]]
    (other / "sweep.json").write_text(json.dumps(book | {"stage": "dpo", "jobs": jobs}))
    for number, values in enumerate(jobs):
        file = other / str(number) / "job.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"settings": values}))
    report_on(books.root, [books.sweep, other], tmp_path / "both")
    methods = [row["method"] for row in rows_of(tmp_path / "both" / "frontier.csv") if "=0." in row["setting"]]
    assert methods == ["ppo", "ppo", "dpo", "dpo"]


def test_measures_that_know_no_judge_are_held_against_his_order(tmp_path: Path) -> None:
    """Six policies, one of them in both sweeps: ROUGE-L has their order, the loss its reverse, the reward model nearly."""
    gold, rewards = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 1.0, 2.0, 3.0, 5.0, 4.0]
    for name, policies in (("a", range(3)), ("b", range(2, 6))):
        jobs = [{"ppo.kl_ctl": str(policy)} for policy in policies]
        for number, policy in enumerate(policies):
            place = tmp_path / name / str(number)
            (place / "evaluation").mkdir(parents=True)
            figures = {"gold_score": gold[policy], "rouge_l": gold[policy] / 10, "nll_demonstrations": gold[policy]}
            (place / "evaluation" / "metrics.json").write_text(json.dumps(figures | {"reward_score": rewards[policy]}))
            (place / "job.json").write_text(json.dumps({"status": "done", "settings": jobs[number]}))
        (tmp_path / name / "sweep.json").write_text(json.dumps({"stage": "ppo", "jobs": jobs}))
    (told, _) = rank_agreement([tmp_path / "a", tmp_path / "b"])
    assert "over 6 policies: ROUGE-L with demonstrations +1.00, likelihood of demonstrations -1.00" in told
    assert f"the reward model's score {1 - 6 * 2 / (6 * 35):+.2f} (" in told
    assert rank_agreement([tmp_path / "b"]) == [], "four are too few"


def test_two_sweeps_of_one_stage_need_names_of_their_own(books: Books, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / books.sweep.name
    shutil.copytree(books.sweep, other)
    with pytest.raises(UserError, match="several sweeps of one stage are called now: rename a folder"):
        report_on(books.root, [books.sweep, other], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_answers_to_other_prompts_are_not_compared(books: Books) -> None:
    file = books.sweep / "1" / "evaluation" / RESPONSES
    file.write_text("\n".join(file.read_text().splitlines()[1:]) + "\n")
    with pytest.raises(UserError, match=r"1/evaluation/responses\.jsonl answers other prompts than artifacts/evaluate"):
        report_on(books.root, [books.sweep], books.sweep)


def test_a_sweep_without_a_job_that_is_done_has_nothing_to_tell(books: Books) -> None:
    for job in books.sweep.glob("*/job.json"):
        job.write_text(json.dumps(json.loads(job.read_text()) | {"status": "failed"}))
    assert report_on(books.root, [books.sweep], books.sweep) == ""
    assert not (books.sweep / "sweep.md").exists()


def test_a_folder_that_is_no_sweep_is_named(books: Books, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"elsewhere holds no sweep: sweep\.json is not there"):
        report_on(books.root, [tmp_path / "elsewhere"], tmp_path / "out")
