"""A rater of sentiment in the world's place: it labels, and figures are of what it says, and of nothing else."""

from __future__ import annotations

from math import exp
from pathlib import Path

import numpy as np
import pytest

from rlhf.data.gold import RATER, load_gold
from rlhf.data.sentiment import SentimentRater, write_rater
from rlhf.labeling.agreement import beside_gold, beside_the_noise, noise_of
from rlhf.labeling.gold import label_gold
from rlhf.labeling.held_out import beside_the_gold, gold_values
from rlhf.labeling.pairs import preferences_of
from tests.labeling.records import answered

TEMPERATURE = 0.5
TEXTS = ["A happy day.", "A sad day.", "A day.", "Happy, happy: sad."]
GOLD = [0.25 + 0.75, 0.25 - 1.25, 0.25, 0.25 + (0.75 - 1.25) / 2**0.5]  # of two words of one weight a vector of length 1


@pytest.fixture
def gold(tmp_path: Path) -> SentimentRater:
    """As a later stage reads it."""
    write_rater(SentimentRater(0.25, {"happy": (2.0, 0.75), "sad": (2.0, -1.25)}), tmp_path / RATER)
    found = load_gold(lambda stage, file: tmp_path / file if (stage, file) == ("prepare", RATER) else None)
    assert isinstance(found, SentimentRater)
    return found


def test_labels_follow_it_as_often_as_bradley_terry_says(gold: SentimentRater) -> None:
    drawn = [answered(TEXTS, f"Once upon a time {i}.") for i in range(4000)]
    rankings = label_gold(drawn, gold, TEMPERATURE, seed=0)
    assert gold_values(rankings[:1], gold)[0] == pytest.approx(GOLD)
    for i, j in ((0, 1), (0, 2), (3, 1)):
        wins = np.mean([ranking.ranks[i] < ranking.ranks[j] for ranking in rankings])
        assert wins == pytest.approx(1 / (1 + exp((GOLD[j] - GOLD[i]) / TEMPERATURE)), abs=0.03)  # four standard errors


def test_labels_do_not_hang_on_the_mood_of_the_prompt(gold: SentimentRater) -> None:
    for question in ("A sad, sad day.", "Happy!"):
        (ranking,) = label_gold([answered(TEXTS, question)], gold, 1e-6, seed=0)
        assert ranking.ranks == (0, 3, 1, 2)


def test_figures_of_labels_and_of_a_reward_model_speak_of_its_scores(gold: SentimentRater) -> None:
    rankings = label_gold([answered(TEXTS, f"Once {i}.") for i in range(200)], gold, TEMPERATURE, seed=1)
    preferences = [preference for ranking in rankings for preference in preferences_of(ranking)]
    about, curve = beside_gold(rankings, preferences, gold, TEMPERATURE)
    assert about["mean_gold"] == {"gold": pytest.approx(np.mean(GOLD))}, "it knows no axes"
    noise = noise_of(rankings, gold, TEMPERATURE)
    assert {name: about[name] for name in noise} == noise
    assert sum(row["pairs"] for row in curve) == len(preferences) == 200 * 6
    beside = beside_the_noise(noise["noise_ceiling"], rankings, gold, TEMPERATURE)
    assert beside["share_of_ceiling"] == pytest.approx(1.0)

    own = beside_the_gold(gold_values(rankings, gold), rankings, gold)
    assert (own["gold_pairs"], own["gold_accuracy"]) == (200 * 6, 1.0)
    turned = beside_the_gold([[-value for value in row] for row in gold_values(rankings, gold)], rankings, gold)
    assert turned["gold_accuracy"] == 0.0
