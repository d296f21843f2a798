"""A preference of the data is a ranking of two, and comes back as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from rlhf.labeling.dataset import label_beside, label_dataset
from rlhf.labeling.order import ranks_by
from rlhf.labeling.pairs import preferences_of
from rlhf.records import Preference, Ranking, Responses
from rlhf.runtime.run import Run
from tests.labeling.records import answered, asked

Make = Callable[..., Run]

GIVEN = Preference(
    asked("why ?"), "good", "poor", "test", "people", rejected_ended=False, settings={"year": 2022}, margin=0.5
)


def test_a_preference_becomes_a_ranking_of_two_and_comes_back() -> None:
    (ranking,) = label_dataset([GIVEN])
    assert (ranking.ranks, ranking.margin) == ((0, 1), 0.5)
    assert [response.text for response in ranking.responses] == ["good", "poor"]
    assert (ranking.labeler, ranking.settings, ranking.split) == ("people", {"year": 2022}, "test")
    assert preferences_of(ranking) == [GIVEN]


def test_a_preference_between_identical_texts_is_a_tie() -> None:
    (ranking,) = label_dataset([Preference(asked("why ?"), "same", "same", "train", "people")])
    assert ranking.pairs() == []


def test_a_labeler_is_held_against_what_is_known_without_its_labels_entering_the_rankings(make_run: Make) -> None:
    known = label_dataset([replace(GIVEN, chosen=chosen, rejected=rejected) for chosen, rejected in ("ab", "cd", "fe")])
    drawn = [answered(["b", "a"], "what ?")]

    def by_alphabet(run: Run, responses: Sequence[Responses]) -> tuple[list[Ranking], dict[str, Any]]:
        order = [ranks_by([-ord(response.text) for response in one.responses]) for one in responses]
        rankings = [
            Ranking(one.prompt, one.responses, ranks, one.split, "alphabet")
            for one, ranks in zip(responses, order, strict=True)
        ]
        return rankings, {"asked": len(responses)}

    rankings, figures = label_beside(make_run(), by_alphabet, drawn, known)
    assert [(ranking.ranks, ranking.prompt) for ranking in rankings] == [((1, 0), drawn[0].prompt)]
    agreed = {"pairs": 3, "ordered_pairs": 3, "agreement": 2 / 3, "kappa": pytest.approx(1 / 3)}
    assert figures == {"asked": 4, "dataset": agreed}
    assert label_beside(make_run(), by_alphabet, drawn, [])[1] == {"asked": 1}
