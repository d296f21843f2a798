"""The whole pipeline from an empty clone: what every stage leaves, and that stock tools can use it."""

from __future__ import annotations

import csv
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf.models.batching import Batching
from rlhf.models.forward import scores_of
from rlhf.models.reward import load_reward_model
from rlhf.models.tokens import Example
from tests.models.tiny_models import engine_settings
from tests.pipeline.clone import STAGES, TRAINED
from tests.pipeline.conftest import Smoke

FIGURES = {
    "gold_score",
    "help",
    "honest",
    "logic",
    "harm",
    "reward_score",
    "kl_per_response",
    "response_tokens",
    "ended",
    "nll_demonstrations",
    "rouge_l",
    "win_rate",
}
PLACE = re.compile(r"/(home|root|tmp|usr|opt|var|mnt|work|Users|private)/\w")
TIME = re.compile(r"\b20\d\d-[01]\d-[0-3]\d\b|\b\d\d?:\d\d:\d\d\b")
OF_THE_RUN = re.compile(r"seconds|hostname|commit|memory|_gib", re.IGNORECASE)
TEXTS = (".json", ".jsonl", ".csv", ".md", ".txt", ".yaml", ".jinja")


def test_every_stage_ran_once_in_order(smoke: Smoke) -> None:
    assert smoke.done.ran == ["config", *STAGES]
    assert "Traceback" not in smoke.done.stderr
    assert "no MLflow" not in smoke.done.stderr
    assert set(smoke.clone.lock()) == {"config", *STAGES}


def test_each_stage_prints_its_settings_before_it_works_and_says_how_far_it_is(smoke: Smoke) -> None:
    said = smoke.done.stdout
    for stage in TRAINED:
        output = said.split(f"Running stage '{stage}':")[1].split("Running stage")[0]
        settings, progress = output.split(f"\n{stage} ", 1)
        assert yaml.safe_load(settings.partition("\n> ")[2].partition("\n")[2])[stage] == smoke.clone.params()[stage]
        assert re.search(r"\d+/\d+ \(100%\), \d+:\d\d gone, 0:00 to go: ", progress)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_leaves_figures_and_a_curve(smoke: Smoke, stage: str) -> None:
    assert json.loads(smoke.clone.artifact(stage, "metrics.json").read_text(encoding="utf-8"))
    with smoke.clone.artifact(stage, "curve.csv").open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[0] == "step"
    assert rows
    assert all(len(row) == len(header) for row in rows)


@pytest.mark.parametrize("stage", TRAINED)
def test_every_model_is_a_hugging_face_directory_without_a_path_in_its_config(smoke: Smoke, stage: str) -> None:
    model = smoke.clone.artifact(stage, "model")
    names = {path.name for path in model.iterdir()}
    stock = {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "README.md",
    }
    assert names == stock | ({"generation_config.json"} if stage != "reward" else set())
    for path in model.glob("*config.json"):
        texts = texts_in(json.loads(path.read_text(encoding="utf-8")))
        assert not [text for text in texts if re.search(r"^[/~.]|\w/\w", text)], path.name


def texts_in(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case list():
            return [text for item in value for text in texts_in(item)]
        case dict():
            return [text for key, item in value.items() if key != "chat_template" for text in texts_in(item)]
    return []


def test_kept_snapshots_are_models_too(smoke: Smoke) -> None:
    kept = [path.name for path in sorted(smoke.clone.artifact("ppo", "snapshots").iterdir())]
    every = smoke.clone.params()["ppo"]["keep_every"]
    last = json.loads(smoke.clone.artifact("ppo", "metrics.json").read_text(encoding="utf-8"))["step"]
    assert [name for name in kept if name != "step_0000"] == [f"step_{s:04d}" for s in range(every, last + 1, every)]
    for name in kept:
        assert AutoModelForCausalLM.from_pretrained(smoke.clone.artifact("ppo", "snapshots", name)).config.vocab_size


def test_the_evaluation_has_every_figure_of_every_model(smoke: Smoke) -> None:
    metrics = json.loads(smoke.clone.artifact("evaluate", "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == {"base", "sft", "ppo", "dpo", "best_of_4", "yardsticks"}
    for model in ("base", "sft", "ppo", "dpo"):
        for figures in (metrics[model], metrics[model]["greedy"]):
            assert set(figures) >= FIGURES
            assert set(figures["win_rate"]) == {"mean", "low", "high"}
            assert 0 <= figures["win_rate"]["low"] <= figures["win_rate"]["mean"] <= figures["win_rate"]["high"] <= 1
    assert set(metrics["best_of_4"]) >= FIGURES
    assert "greedy" not in metrics["best_of_4"]
    assert metrics["sft"]["kl_per_response"] == metrics["sft"]["greedy"]["kl_per_response"] == 0
    assert metrics["sft"]["greedy"]["win_rate"]["mean"] == 0.5


def test_every_held_out_prompt_has_an_answer_of_every_model(smoke: Smoke) -> None:
    prompts = rows_of(smoke.clone.artifact("prepare", "prompts.jsonl"))
    answered = rows_of(smoke.clone.artifact("evaluate", "responses.jsonl"))
    assert [row["prompt"] for row in answered] == [row["prompt"] for row in prompts if row["split"] == "test"]
    for row in answered:
        assert set(row["sampled"]) == {"base", "sft", "ppo", "dpo", "best_of_4"}
        assert set(row["greedy"]) == {"base", "sft", "ppo", "dpo"}
    side_by_side = smoke.clone.artifact("evaluate", "side_by_side.md").read_text(encoding="utf-8")
    assert sum(row["prompt"][-1]["content"] in side_by_side for row in answered) >= 10


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("model", ["sft", "ppo", "dpo"])
def test_stock_transformers_give_the_greedy_answers_of_the_pipeline(smoke: Smoke, model: str) -> None:
    directory = smoke.clone.artifact(model, "model")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    policy = AutoModelForCausalLM.from_pretrained(directory)
    for row in rows_of(smoke.clone.artifact("evaluate", "responses.jsonl")):
        inputs = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        generated = policy.generate(**inputs, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        answer = row["greedy"][model]
        assert tokenizer.decode(generated, skip_special_tokens=True).strip() == answer["text"]
        assert (int(generated[-1]) == tokenizer.eos_token_id) == answer["ended"]


def test_stock_scores_are_those_of_the_pipeline_plus_the_centre(smoke: Smoke) -> None:
    directory = smoke.clone.artifact("reward", "model")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    stock = AutoModelForSequenceClassification.from_pretrained(directory)
    ours = load_reward_model(directory, torch.device("cpu"), engine_settings())
    rows = rows_of(smoke.clone.artifact("evaluate", "responses.jsonl"))
    examples, recorded = [], []
    for row in rows:
        answer = row["greedy"]["sft"]
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        ends = [tokenizer.eos_token_id] if answer["ended"] else []
        examples.append(Example(prompt, tokenizer.encode(answer["text"], add_special_tokens=False) + ends))
        recorded.append(answer["reward_score"])
    with torch.no_grad():
        logits = [stock(input_ids=torch.tensor([e.prompt_ids + e.response_ids])).logits[0, 0] for e in examples]
    centre, unit = stock.config.reward_center, getattr(stock.config, "reward_scale", 1.0)
    near = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(
        torch.stack(logits), scores_of(ours, examples, Batching(tokenizer.pad_token_id, 4096)) * unit + centre, **near
    )
    torch.testing.assert_close(torch.stack(logits), torch.tensor(recorded) * unit + centre, **near)


def test_nothing_of_the_time_the_machine_or_the_place_is_in_an_output(smoke: Smoke) -> None:
    mine = [str(smoke.clone.root), str(smoke.clone.home), socket.gethostname(), smoke.commit]
    for path in (path for path in smoke.clone.artifact().rglob("*") if path.is_file()):
        found = path.read_bytes()
        assert not [word for word in mine if len(word) > 3 and word.encode() in found], path
        if path.suffix in TEXTS:
            text = path.read_text(encoding="utf-8")
            told = PLACE.search(text) or TIME.search(text)
            told = told or (OF_THE_RUN.search(text) if path.name in ("metrics.json", "curve.csv") else None)
            assert not told, f"{path}: {told}"
