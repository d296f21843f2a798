"""What people read: prompts of every kind, and texts that cannot break a table."""

from __future__ import annotations

import numpy as np

from rlhf.evaluation.answers import Answers, Contestant
from rlhf.evaluation.names import shown_name
from rlhf.evaluation.report import side_by_side, spread
from rlhf.records import Message


def test_shown_prompts_are_of_every_family_before_a_second_of_any() -> None:
    families = ["story", "story", "story", "fact", "list", "fact"]
    assert spread(families, 3) == [0, 3, 4]
    assert spread(families, 4) == [0, 1, 3, 4]
    assert spread(families, 100) == [0, 1, 2, 3, 4, 5]


def test_names_for_people() -> None:
    assert [shown_name(model) for model in ("base", "sft", "best_of_4")] == ["base", "SFT", "best of 4"]


def test_a_text_stays_in_its_cell() -> None:
    one = np.ones(1)
    answers = Answers(["a | b\n\n<b>c\\"], ended=one, tokens=one, rewards=one * 0.25, kl=None, gold={})
    page = side_by_side([(Message("user", "why ?\nwell ?"),)], [Contestant("ppo", "greedy", answers, {})], [0])
    assert "> **user** why ? well ?" in page
    assert "| PPO | greedy | a \\| b \\<b>c\\\\ | 0.25 |" in page
