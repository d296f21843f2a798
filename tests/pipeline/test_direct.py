"""Stages run directly and in sweeps: the same bytes as under DVC, elsewhere, and nothing of DVC's is touched."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from rlhf.data.files import read_records, write_records
from rlhf.records import SPLITS, WRITER, Message, Preference, Ranking, Response
from tests.pipeline.clone import Clone, contents, only
from tests.pipeline.conftest import SMOKE

OF_HYDRA = (".hydra/", "multirun.yaml", "job.")  # and the books of a sweep


def results(folder: Path) -> dict[str, str]:
    """What a stage left, without Hydra's notes."""
    return {
        name: digest for name, digest in contents(folder).items() if not name.startswith(OF_HYDRA) and name[-4:] != ".log"
    }


def assert_untouched(clone: Clone, before: dict[str, str]) -> None:
    assert contents(clone.artifact()) == before
    assert json.loads(clone.dvc("status", "--json").stdout) == {}
    assert clone.git("status", "--porcelain") == ""


def test_ppo_run_directly_makes_the_same_bytes_at_another_place_and_time(copy: Clone) -> None:
    before = contents(copy.artifact())
    copy.stage("ppo", SMOKE)
    output = only(copy.root / "runs" / "ppo")
    assert {"model", "metrics.json", "curve.csv", "snapshots"} <= {path.name for path in output.iterdir()}
    assert results(output) == contents(copy.artifact("ppo"))
    assert_untouched(copy, before)


def test_another_setting_makes_another_model_in_a_folder_of_its_own(copy: Clone) -> None:
    before = contents(copy.artifact())
    done = copy.stage("dpo", SMOKE, "dpo.beta=1", "hydra.run.dir=runs/mine")
    assert "beta: 1" in done.stdout
    made, there = results(copy.root / "runs" / "mine"), contents(copy.artifact("dpo"))
    assert set(made) == set(there)
    other = {name for name in made if made[name] != there[name]}
    assert other >= {"model/model.safetensors", "metrics.json", "curve.csv"}
    assert not [name for name in other if name.startswith("model/") and "token" in name]
    assert_untouched(copy, before)


def test_dpo_in_rounds_learns_labels_of_its_own_answers_and_repeats_to_the_byte(copy: Clone) -> None:
    """Once with what the reference said before at hand, once without."""
    before = contents(copy.artifact())
    made = []
    for name in ("first", "second"):
        shutil.rmtree(copy.root / "cache", ignore_errors=True)
        copy.stage("dpo", SMOKE, "dpo.rounds=2", f"hydra.run.dir=runs/{name}")
        made.append(copy.root / "runs" / name)
    copy.stage("dpo", SMOKE, "dpo.rounds=2", "hydra.run.dir=runs/third")
    assert results(made[0]) == results(made[1]) == results(copy.root / "runs" / "third")
    labelled = [json.loads(line) for line in (copy.artifact("label", "preferences.jsonl")).read_text().splitlines()]
    anew = [json.loads(line) for line in (made[0] / "preferences_round_2.jsonl").read_text().splitlines()]
    old = {(str(row["prompt"]), row["chosen"][0]["content"]) for row in labelled}
    assert {str(row["prompt"]) for row in anew} <= {str(row["prompt"]) for row in labelled if row["split"] == "train"}
    assert not {(str(row["prompt"]), row["chosen"][0]["content"]) for row in anew} <= old
    with (made[0] / "curve.csv").open() as file:
        rounds = [row["round"] for row in csv.DictReader(file)]
    assert rounds == sorted(rounds)
    assert set(rounds) == {"1", "2"}
    assert "# What the policy answers while it learns" in (made[0] / "samples.md").read_text()
    assert_untouched(copy, before)


def test_rankings_that_came_with_the_data_are_labels_whole(copy: Clone) -> None:
    asked = (Message("user", "why ?"),)
    responses = tuple(Response(text, True, WRITER) for text in ("a", "b", "c", "d"))
    orders = [(0, 1, 2, 3), (0, 1, 1, 2), (0, 0, 0, 0)]
    given = [Ranking(asked, responses, ranks, split, "dataset") for ranks, split in zip(orders, SPLITS, strict=True)]
    write_records(copy.artifact("prepare", "rankings.jsonl"), given)
    own = ["data=ultrafeedback", "data.path=mine.jsonl", "labeler=dataset", "label.max_dropped_share=0.5"]
    copy.stage("label", SMOKE, *own, "hydra.run.dir=runs/mine")
    assert read_records(copy.root / "runs" / "mine" / "rankings.jsonl", Ranking) == given[:2], "what ties teaches nothing"
    pairs = read_records(copy.root / "runs" / "mine" / "preferences.jsonl", Preference)
    assert [(pair.chosen + pair.rejected, pair.split) for pair in pairs] == [
        *((pair, "train") for pair in ("ab", "ac", "ad", "bc", "bd", "cd")),
        *((pair, "validation") for pair in ("ab", "ac", "ad", "bd", "cd")),
    ]
    metrics = json.loads((copy.root / "runs" / "mine" / "metrics.json").read_text())
    assert (metrics["dropped_prompts"], metrics["tied_share"]) == (1, pytest.approx(7 / 18))


def test_the_jobs_of_a_sweep_do_not_touch_each_other_or_the_pipeline(copy: Clone) -> None:
    before = contents(copy.artifact())
    copy.stage("reward", "-m", SMOKE, f"reward.lr=5e-3,{copy.params()['reward']['lr']}")
    jobs = only(copy.root / "sweeps" / "reward")
    first, second = results(jobs / "0"), results(jobs / "1")
    assert first["model/model.safetensors"] != second["model/model.safetensors"]
    assert second == contents(copy.artifact("reward"))
    assert_untouched(copy, before)


def test_a_hub_model_comes_from_the_hubs_cache_at_its_commit(copy: Clone) -> None:
    """Where the hub has been asked once, nobody asks again."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = copy.home / "hub" / "hub" / "models--maker--little" / "snapshots" / commit
    shutil.copytree(copy.artifact("sft", "model"), cached)
    hub = ("model=hub", "model.id=maker/little", f"model.revision={commit}", "hydra.run.dir=runs/hub")
    copy.stage("base", *hub, HF_HOME=str(copy.home / "hub"), HF_HUB_OFFLINE="1")
    made, given = contents(copy.root / "runs" / "hub" / "model"), contents(cached)
    assert set(made) == set(given)
    assert [name for name in made if made[name] != given[name]] == ["README.md"]  # which says Base model


def test_a_hub_model_comes_from_a_folder_where_its_path_is_one(copy: Clone) -> None:
    """Whatever the hub's cache has."""
    hub = ("model=hub", "model.id=maker/little", f"model.revision={'0123456789' * 4}", "hydra.run.dir=runs/there")
    copy.stage("base", *hub, "model.path=artifacts/sft/model", HF_HOME=str(copy.home / "empty"))
    made, given = contents(copy.root / "runs" / "there" / "model"), contents(copy.artifact("sft", "model"))
    assert [name for name in made if made[name] != given[name]] == ["README.md"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["prepare", "base", "sft", "sample", "label", "dpo", "evaluate"])
def test_every_stage_run_directly_makes_the_same_bytes(copy: Clone, stage: str) -> None:
    copy.stage(stage, SMOKE)
    assert results(only(copy.root / "runs" / stage)) == contents(copy.artifact(stage))
