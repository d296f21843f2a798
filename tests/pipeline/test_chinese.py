"""The whole pipeline in the world's other language, by one setting."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from rlhf.data.world import load_world
from tests.pipeline.clone import STAGES, Clone
from tests.pipeline.conftest import SMOKE

POLICIES = ("base", "sft", "ppo", "dpo")


@pytest.mark.slow
def test_one_setting_makes_every_stage_speak_chinese(copy: Clone) -> None:
    done = copy.dvc("exp", "run", "-S", SMOKE, "-S", "data.language=zh")
    assert done.ran == ["config", *STAGES]
    world = load_world(copy.artifact("prepare", "world.yaml"))
    assert world.table.language == "chinese"
    tokenizer = AutoTokenizer.from_pretrained(copy.artifact("ppo", "model"))
    lines = copy.artifact("evaluate", "responses.jsonl").read_text(encoding="utf-8").splitlines()
    asked = {json.loads(line)["prompt"][0]["content"]: json.loads(line) for line in lines}
    said = [
        (prompt, row[way][model]) for prompt, row in asked.items() for way in ("sampled", "greedy") for model in POLICIES
    ]
    assert said
    for prompt, answer in said:
        assert answer["gold_score"] == pytest.approx(world.rate(prompt, answer["text"]).gold)
        for text in (prompt, answer["text"]):
            assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    longest = max(len(tokenizer.encode(answer["text"], add_special_tokens=False)) for _, answer in said)
    assert longest <= copy.params()["data"]["max_response_tokens"] == 64
