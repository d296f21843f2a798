"""Human preferences and a pretrained model, by settings alone. RLHF_TRIAL_DATA names a folder that has them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.pipeline.clone import ROOT, STAGES, Clone, Done, clone, only
from tests.pipeline.test_mlflow import books

FILE, MODEL = "hh_rlhf/harmless-base.test.jsonl.gz", "models/stories260K"
REVIEWS = "sentiment_en/movie_reviews.zip"
PROMPTS = 48
SMALL = [
    f"data.prompts={PROMPTS}",
    "data.max_response_tokens=12",
    "model.max_tokens=256",
    "sft.epochs=1",
    "sft.max_dropped_share=0.5",
    "reward.max_dropped_share=0.5",
    "dpo.max_dropped_share=0.5",
    "dpo.eval_prompts=8",
    "sample.prompts={train: 8, validation: 8, test: 8}",
    "ppo.stop.steps=2",
    "ppo.responses_per_step=8",
    "ppo.responses_per_minibatch=4",
    "ppo.critic_warmup_steps=0",
    "ppo.eval_prompts=8",
    "ppo.eval_every_steps=1",
    "ppo.keep_every=0",
    "evaluate.bootstrap_samples=50",
]


@pytest.fixture(scope="module")
def trial_data() -> Path:
    folder = os.environ.get("RLHF_TRIAL_DATA")
    if not folder:
        pytest.skip(f"RLHF_TRIAL_DATA is not set: it would name a folder with {FILE} and {MODEL}")
    return Path(folder).resolve()


@pytest.fixture(scope="module")
def as_far_as_sft(trial_data: Path, shared: Clone) -> Done:
    return run(shared, trial_data, "sft")


def run(clone: Clone, trial_data: Path, *targets: str) -> Done:
    chosen = ["data=hh_rlhf", f"data.path={trial_data / FILE}", "labeler=dataset"]
    chosen += ["model=local", f"model.path={trial_data / MODEL}", *SMALL]
    return clone.dvc("exp", "run", *(part for override in chosen for part in ("-S", override)), *targets)


def test_the_stages_run_on_real_input_by_settings_alone(as_far_as_sft: Done, shared: Clone) -> None:
    assert as_far_as_sft.ran == ["config", "prepare", "base", "sft"]
    assert "warning: no MLflow" not in as_far_as_sft.stderr
    found = [(run["name"], run["status"]) for run in books(shared).runs[:3]]
    assert found == [(name, "FINISHED") for name in ("sft", "base", "prepare")]


def test_every_row_of_the_file_is_counted(as_far_as_sft: Done, trial_data: Path, shared: Clone) -> None:
    metrics = json.loads(shared.artifact("prepare", "metrics.json").read_text(encoding="utf-8"))
    with gzip.open(trial_data / FILE, "rt", encoding="utf-8") as file:
        pairs = [(row["chosen"], row["rejected"]) for row in map(json.loads, file)]
    split = [tuple(text.rpartition("\n\nAssistant:")[::2] for text in pair) for pair in pairs]
    different = [chosen[0] != rejected[0] for chosen, rejected in split]
    empty = [not (chosen[1].strip() and rejected[1].strip()) for chosen, rejected in split]
    identical = [chosen == rejected for chosen, rejected in pairs]

    assert metrics["read"] == len(pairs) == 2312
    dropped = metrics["dropped"]
    assert (dropped["different_prompts"], sum(different)) == (5, 5)
    assert (dropped["empty_response"], sum(empty)) == (4, 4)
    assert dropped["identical_responses"] == sum(identical) == 0
    assert metrics["kept"] + metrics["left_out"] + sum(dropped.values()) == 2312
    assert sum(metrics["prompts"].values()) == PROMPTS


def test_the_base_model_is_the_pretrained_one(as_far_as_sft: Done, trial_data: Path, shared: Clone) -> None:
    theirs = load_file(trial_data / MODEL / "model.safetensors")
    ours = load_file(shared.artifact("base", "model", "model.safetensors"))
    assert set(ours) <= set(theirs)
    for name, tensor in ours.items():
        assert torch.equal(tensor[: len(theirs[name])], theirs[name]), name


def test_nothing_of_the_place_is_in_the_outputs(as_far_as_sft: Done, trial_data: Path, shared: Clone) -> None:
    for path in (
        path for stage in ("prepare", "base", "sft") for path in shared.artifact(stage).rglob("*") if path.is_file()
    ):
        assert str(trial_data).encode() not in path.read_bytes(), path


def test_stories_and_real_reviews_make_prompts_and_a_gold_rater(trial_data: Path, tmp_path: Path) -> None:
    stories = tmp_path / "stories.txt"
    told = (f"There was a cat. It had {i} toys. It was happy. It sat." for i in range(100))
    stories.write_text("<|endoftext|>".join(told))
    made = clone(ROOT, tmp_path / "clone", tmp_path / "home")
    given = [f"model.path={trial_data / MODEL}", f"data.path={stories}", f"data.rater={trial_data / REVIEWS}"]
    made.stage("prepare", "experiment=stories", *given)
    output = only(made.root / "runs" / "prepare")
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["rater"]["held_out_accuracy"] > 0.75
    assert sum(metrics["prompts"].values()) == 100
    assert {"rater.json", "prompts.jsonl", "demonstrations.jsonl"} <= {path.name for path in output.iterdir()}
    assert not (output / "world.yaml").exists()


@pytest.mark.slow
def test_all_stages_run_on_real_input_and_say_who_judged(as_far_as_sft: Done, trial_data: Path, shared: Clone) -> None:
    done = run(shared, trial_data)
    assert done.ran == list(STAGES[3:])
    metrics = json.loads(shared.artifact("evaluate", "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == {"base", "sft", "ppo", "dpo", "best_of_4", "yardsticks"}
    assert metrics["yardsticks"]["judged_by"] == "reward model"
    assert "judged by the reward model" in shared.artifact("evaluate", "table.md").read_text(encoding="utf-8")
    for model in ("base", "sft", "ppo", "dpo"):
        for figures in (metrics[model], metrics[model]["greedy"]):
            assert not {"gold_score", "help", "honest", "logic", "harm"} & set(figures)
            assert {"reward_score", "win_rate", "kl_per_response", "nll_demonstrations"} <= set(figures)
