"""A reward model in a folder orders responses by its scores, with the noise that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, sqrt
from pathlib import Path

import pytest
import torch

from rlhf.labeling.reward_model import label_by_reward_model
from rlhf.models.reward import save_reward_model
from rlhf.runtime.run import Run
from tests.labeling.records import answered
from tests.models.tiny_models import linear_classifier, words_tokenizer

Make = Callable[..., Run]
WORTH = {"good": 1.5, "fair": 0.5, "poor": -1.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A classifier whose score is the worth of the last word, which its template leaves last."""
    tokenizer = words_tokenizer("good fair poor fine why what ?")
    tokenizer = tokenizer if len(tokenizer) % 2 == 0 else words_tokenizer("good fair poor fine why what ? then")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    worth = torch.zeros(len(tokenizer))
    for word, value in WORTH.items():
        worth[tokenizer.get_vocab()[word]] = value
    save_reward_model(linear_classifier(worth), tokenizer, tmp_path / "scorer")
    return tmp_path / "scorer"


def test_the_higher_score_wins_and_equal_ones_tie(make_run: Make, folder: Path) -> None:
    run = make_run("labeler=reward_model", f"labeler.path={folder}")
    drawn = [answered(["poor", "good", "fair", "poor"]), answered(["what good", "why good", "why fair", "fair"])]
    rankings, figures = label_by_reward_model(run, drawn)
    assert [ranking.ranks for ranking in rankings] == [(2, 0, 1, 2), (0, 0, 1, 1)]
    assert {ranking.labeler for ranking in rankings} == {"reward_model"}
    assert rankings[0].settings == {"model": "scorer", "temperature": 0.0}
    mean = (-1.0 + 1.5 + 0.5 - 1.0 + 1.5 + 1.5 + 0.5 + 0.5) / 8
    assert figures["reward_model"] == {"mean_score": pytest.approx(mean, abs=1e-5), "truncated": 0}


def test_at_a_temperature_labels_err_as_bradley_terry_says(make_run: Make, folder: Path) -> None:
    run = make_run("labeler=reward_model", f"labeler.path={folder}", "labeler.temperature=2")
    count = 2000
    rankings, _ = label_by_reward_model(run, [answered(["fair", "poor"], f"why {number} ?") for number in range(count)])
    right = sum(ranking.ranks == (0, 1) for ranking in rankings) / count
    expected = 1 / (1 + exp(-(0.5 + 1.0) / 2))
    assert abs(right - expected) < 4 * sqrt(expected * (1 - expected) / count)
    assert set(rankings[0].settings) == {"model", "temperature", "seed"}
