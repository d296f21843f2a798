"""A preference of the data is a ranking of two, and comes back as it was."""

from __future__ import annotations

from rlhf.labeling.dataset import label_dataset
from rlhf.labeling.pairs import preferences_of
from rlhf.records import Preference
from tests.labeling.records import asked

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
