"""Rankings give every ordered pair of distinct texts, once; those that order nothing are counted, and too many stop."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlhf.errors import UserError
from rlhf.labeling.dataset import label_dataset
from rlhf.labeling.pairs import counts, of_first_prompts, preferences_of, tied_share, with_pairs
from rlhf.records import Preference
from tests.labeling.records import answered, asked, ranked

TIED = ranked(["a", "a"], [0, 0])
ORDERED = ranked(["a", "b"], [1, 0])


def pairs(texts: list[str], ranks: list[int]) -> list[tuple[str, str]]:
    return [(preference.chosen, preference.rejected) for preference in preferences_of(ranked(texts, ranks))]


def test_all_pairs_of_four() -> None:
    assert set(pairs(["a", "b", "c", "d"], [2, 0, 1, 3])) == {
        ("b", "c"),
        ("b", "a"),
        ("b", "d"),
        ("c", "a"),
        ("c", "d"),
        ("a", "d"),
    }


def test_ties_carry_no_pair_and_repeated_texts_one() -> None:
    assert sorted(pairs(["a", "b", "a", "c"], [0, 1, 0, 1])) == [("a", "b"), ("a", "c")]


def test_a_text_is_never_preferred_to_itself() -> None:
    assert pairs(["a", "a", "b"], [0, 1, 2]) == [("a", "b")]


def test_a_preference_keeps_what_the_ranking_knows() -> None:
    (preference,) = preferences_of(ORDERED)
    assert (preference.split, preference.labeler, preference.settings) == ("train", "gold", {"temperature": 0.5})


def test_rankings_that_order_nothing_are_left_out() -> None:
    assert with_pairs([ORDERED, TIED, ORDERED], max_dropped_share=0.4) == [ORDERED, ORDERED]


def test_a_share_at_the_limit_passes_and_one_above_stops() -> None:
    assert with_pairs([ORDERED, TIED], max_dropped_share=0.5) == [ORDERED]
    with pytest.raises(UserError, match=r"1 of 2 prompts all tie .*label\.max_dropped_share \(0\.49\)"):
        with_pairs([ORDERED, TIED], max_dropped_share=0.49)


def test_where_a_judge_ties_everything_other_responses_are_no_help() -> None:
    for labeler, advice in (
        ("judge", r"verdicts\.jsonl"),
        ("gold", r"sample\.temperature"),
        ("reward_model", "temperature"),
    ):
        with pytest.raises(UserError, match=advice):
            with_pairs([replace(TIED, labeler=labeler)], max_dropped_share=1.0)


@pytest.mark.parametrize("rankings", [[], [TIED]])
def test_nothing_to_learn_from_stops_whatever_the_limit(rankings: list) -> None:
    with pytest.raises(UserError, match=r"nothing to label|all tie"):
        with_pairs(rankings, max_dropped_share=1.0)


def test_without_anything_to_label_the_labelers_that_do_without_preferences_are_named() -> None:
    with pytest.raises(UserError, match="labeler=judge and labeler=reward_model label without; else `dvc repro sft`"):
        with_pairs([], max_dropped_share=1.0)


def test_tied_share_counts_pairs_of_responses() -> None:
    assert tied_share([TIED, ranked(["a", "b", "b"], [0, 1, 1])]) == pytest.approx(2 / 4)


def test_counts() -> None:
    kept = with_pairs([ORDERED, TIED], max_dropped_share=0.5)
    found = counts([ORDERED, TIED], kept, preferences_of(ORDERED))
    assert found == {
        "rankings": {"train": 1, "validation": 0, "test": 0},
        "pairs": {"train": 1, "validation": 0, "test": 0},
        "tied_share": 0.5,
        "dropped_prompts": 1,
        "dropped_share": 0.5,
    }


SPLITS = ["test", "train", "train", "validation", "train", "test"]


@pytest.mark.parametrize(("prompts", "kept"), [(1, "0135"), (2, "01235"), (3, "012345"), (9, "012345"), (0, "012345")])
def test_only_the_first_train_prompts_are_labelled_and_all_that_are_held_out(prompts: int, kept: str) -> None:
    rows = [replace(answered(["a", "b"], str(place)), split=split) for place, split in enumerate(SPLITS)]
    assert [row.prompt[0].content for row in of_first_prompts(rows, prompts)] == list(kept)


def test_a_prompt_keeps_all_its_preferences() -> None:
    """Data may prefer several times after one prompt, and not in a row."""
    rows = label_dataset(
        [Preference(asked(question), f"good {place}", "poor", "train", "people") for place, question in enumerate("xyxz")]
    )
    assert of_first_prompts(rows, 1) == [rows[0], rows[2]]
    assert of_first_prompts(rows, 2) == rows[:3]
    assert of_first_prompts(rows, 3) == rows
