"""Puts responses in order: rankings, and the preferences they carry (SPEC section 1)."""

from __future__ import annotations

import _checkout  # noqa: F401

from rlhf.runtime.stage import stage

if __name__ == "__main__":
    stage(__file__)  # leaves

from rlhf.data.files import read_records, write_records
from rlhf.data.world import load_world
from rlhf.labeling.agreement import (
    agreement,
    gold_gaps,
    mean_gold,
    noise_figures,
    preference_curve,
    ratings_of,
    word_gaps,
)
from rlhf.labeling.dataset import label_dataset
from rlhf.labeling.gold import label_gold
from rlhf.labeling.pairs import counts, of_first_prompts, preferences_of, with_pairs
from rlhf.records import Preference, Ranking, Responses
from rlhf.runtime.run import Run


def main(run: Run) -> None:
    """Lets the labeler order every prompt's responses, keeps the rankings that prefer something, and writes their pairs."""
    config = run.config
    temperature, prompts = config.labeler.temperature, config.label.prompts
    world = load_world(run.read("prepare", "world.yaml")) if config.labeler.name == "gold" else None
    if world is None:
        ranked, pairs = run.find("prepare", "rankings.jsonl"), run.read("prepare", "preferences.jsonl")
        given = read_records(ranked, Ranking) if ranked else label_dataset(read_records(pairs, Preference))
        rankings = of_first_prompts(given, prompts)
    else:
        responses = read_records(run.read("sample", "responses.jsonl"), Responses)
        rankings = label_gold(of_first_prompts(responses, prompts), world, temperature, run.seed("labels"))

    kept = with_pairs(rankings, config.label.max_dropped_share)
    preferences = [preference for ranking in kept for preference in preferences_of(ranking)]
    write_records(run.output / "rankings.jsonl", kept)
    write_records(run.output / "preferences.jsonl", preferences)

    lengths = word_gaps(preferences)
    metrics = counts(rankings, kept, preferences) | {"longer_preferred": agreement(lengths)}
    if world is None:
        run.curve(preference_curve(lengths, temperature=None))
    else:
        ratings = ratings_of(rankings, world)
        gaps = gold_gaps(preferences, ratings)
        run.curve(preference_curve(gaps, temperature))
        metrics |= noise_figures(gaps, temperature) | {"mean_gold": mean_gold(rankings, ratings)}
    run.finish(metrics)
