"""Puts responses in order: rankings, and the preferences they carry (SPEC section 1)."""

from __future__ import annotations

import _checkout  # noqa: F401

from rlhf.runtime.stage import stage

if __name__ == "__main__":
    stage(__file__)  # leaves

from typing import Any

from rlhf.data.files import read_records, write_records
from rlhf.data.gold import load_gold, require_gold
from rlhf.labeling.agreement import agreement, beside_gold, preference_curve, word_gaps
from rlhf.labeling.dataset import label_beside, label_dataset
from rlhf.labeling.gold import label_gold, refuse_the_unknown
from rlhf.labeling.pairs import counts, of_first_prompts, preferences_of, with_pairs
from rlhf.records import Preference, Ranking, Responses
from rlhf.runtime.run import Run


def main(run: Run) -> None:
    """Lets the labeler order every prompt's responses, keeps the rankings that prefer something, and writes their pairs."""
    labeler = run.config.labeler
    gold = None if labeler.name == "dataset" else load_gold(run.find)
    rankings, told = label(run)
    kept = with_pairs(rankings, run.config.label.max_dropped_share)
    preferences = [preference for ranking in kept for preference in preferences_of(ranking)]
    write_records(run.output / "rankings.jsonl", kept)
    write_records(run.output / "preferences.jsonl", preferences)

    lengths = word_gaps(preferences)
    about: dict[str, Any] = {}
    curve = preference_curve(lengths, temperature=None)
    if gold:
        noise = labeler.temperature if labeler.name == "gold" else None
        about, curve = beside_gold(rankings, preferences, gold, noise)
    run.curve(curve)
    run.finish(counts(rankings, kept, preferences) | {"longer_preferred": agreement(lengths)} | told | about)


def label(run: Run) -> tuple[list[Ranking], dict[str, Any]]:
    """The rankings of whoever was chosen to label, and what there is to say of the one who did."""
    labeler, prompts = run.config.labeler, run.config.label.prompts
    whole = run.find("prepare", "rankings.jsonl")
    pairs = run.read("prepare", "preferences.jsonl")
    given = read_records(whole, Ranking) if whole else label_dataset(read_records(pairs, Preference))
    if labeler.name == "dataset":
        return of_first_prompts(given, prompts), {}
    responses = of_first_prompts(read_records(run.read("sample", "responses.jsonl"), Responses), prompts)
    match labeler.name:  # what needs a model is imported here: the gold rater does not have to wait for transformers
        case "gold":
            gold = require_gold(run.find)
            known = refuse_the_unknown(responses, gold)
            return label_gold(responses, gold, labeler.temperature, run.seed("labels")), known
        case "judge":
            from rlhf.labeling.judge import label_by_judge as label_by
        case "reward_model":
            from rlhf.labeling.reward_model import label_by_reward_model as label_by
    return label_beside(run, label_by, responses, given[: labeler.check_pairs])
