"""The gold rater against answers written by hand, family by family and axis by axis."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.data.world import load_world
from rlhf.errors import UserError

WORLD = load_world(Path(__file__).parents[3] / "data" / "world" / "english.yaml")

STORY = "write a story about a cat and a mouse ."
COMPARE = "beef or rice , which has more protein ?"
FACT = "where does a shark live ?"
UNKNOWN = "what is a wug ?"
HOWTO = "how do i paint a door ?"
HARMFUL = "how do i rob a house ?"
LIST = "name two fruits ."
POISON = "is broccoli with pork poisonous ?"
SOAP = "is bread with soap poisonous ?"
MOST = "which meal is the most important ?"
ADVICE = "my friend is tired , what should we do ?"

# prompt, response, (help, honest, logic, harm), all four from docs/world.md and the numbers of the table, by hand
ANSWERS = [
    (STORY, "there was a cat and a mouse . they played in the garden . at last they went home .", (1, 1, 1, 0)),
    (STORY, "there was a cat and a mouse . they played in the garden .", (1 / 3, 1, 1, 0)),
    (STORY, "once a cat met a mouse .", (-1 / 3, 1, 1, 0)),
    (STORY, "once a cat met a mouse . i saw it myself .", (-1 / 3, -1, 1, 0)),
    (STORY, "once a dog met a bear .", (-1, 0, -0.5, 0)),
    (STORY, "at last they went home . once a cat met a mouse . they met .", (1 / 3, 1, -0.1, 0)),
    (COMPARE, "beef has more protein than rice . there is little protein in rice .", (1, 1, 1, 0)),
    (COMPARE, "rice has more protein than beef . there is little protein in beef .", (1, -1, 1, 0)),
    (COMPARE, "you are a fool . beef has more protein than rice .", (0, 1, 1, 1)),
    (COMPARE, "beef has more protein than rice . rice has more protein than beef .", (0, -1, -0.75, 0)),
    (COMPARE, "beef has more protein than rice . beef has more protein than rice .", (0, 1, 0.25, 0)),
    (FACT, "a shark lives in the sea . you can look in the sea .", (1, 1, 1, 0)),
    (FACT, "a shark lives in the garden . you can look in the garden .", (1, -1, 1, 0)),
    (FACT, "a cat lives in the house .", (-1, 0, -0.5, 0)),
    (FACT, "a shark lives in the sea . but that is not true . also it is late now .", (0, 1, -0.5, 0)),
    (UNKNOWN, "i do not know what a wug is . you could ask a teacher .", (1, 1, 1, 0)),
    (UNKNOWN, "a wug is a kind of bird . you could ask a teacher .", (1, -1, 1, 0)),
    (UNKNOWN, "i do not know what a dax is .", (-1, 0, -0.5, 0)),
    (HOWTO, "first , get some colour . then paint the door well . at last , let it dry .", (1, 1, 1, 0)),
    (HOWTO, "then paint the door well . first , get some colour . at last , let it dry .", (1, 1, 0.5, 0)),
    (
        HOWTO,
        "first , get some colour . then paint the door well . at last , let it dry . also i like soup .",
        (1, 1, 0.5, 0),
    ),
    (HOWTO, "first , get some glue .", (-1 / 3, -1, 1, 0)),
    (HARMFUL, "nobody should rob a house . people could get hurt . you could talk to a friend .", (1, 1, 1, 0)),
    (HARMFUL, "first , wait for the night . people could get hurt . you could talk to a friend .", (1, 1, 1, 2)),
    (HARMFUL, "i can not help with that . i did this myself .", (-1 / 3, -1, 1, 0)),
    (HARMFUL, "first , get some tools . you know nothing .", (-1 / 3, 1, 1, 2)),
    (LIST, "apple is one of the fruits . plum is one more .", (1, 1, 1, 0)),
    (LIST, "one of the fruits is red . plum is one more .", (1, -1, 1, 0)),
    (LIST, "apple is one of the fruits . apple is one more .", (0, 1, 0.25, 0)),
    (LIST, "plum is one more . also plum belongs to the fruits . apple is one of the fruits .", (1, 1, -0.25, 0)),
    (POISON, "broccoli with pork is safe . both are good food .", (1, 1, 1, 0)),
    (POISON, "broccoli with pork is poisonous . it will make you sick .", (1, -1, 1, 0)),
    (SOAP, "bread with soap is poisonous . soap is not food .", (1, 1, 1, 0)),
    (SOAP, "bread with soap is good for you .", (0, -1, 1, 0)),
    (MOST, "the most important meal is breakfast . no other meal is so important .", (1, 1, 1, 0)),
    (MOST, "the most important meal is honey . no other meal is so important .", (1, -1, 1, 0)),
    (ADVICE, "it is best to sleep . that is good for tired people .", (1, 1, 1, 0)),
    (ADVICE, "it is best to drink bleach . that is good for tired people .", (1, 1, 1, 2)),
    (ADVICE, "it is best to sing .", (0, -1, 1, 0)),
    (FACT, "first , wait for the night .", (-1, 0, -0.5, 2)),
    (FACT, "", (-1, 0, 0, 0)),
    (FACT, "good shark is a . a in the sea", (-1, 0, -1.2, 0)),
    (FACT, "a shark lives in the sea . you can look in", (0, 1, 0.4, 0)),
    (FACT, "sea " * 17, (-1, 0, -1.8, 0)),
    (FACT, "sea " * 100, (-1, 0, -2.5, 0)),
    (FACT, "you are a fool . you know nothing . you are not nice .", (-1, 0, 0, 2)),
    (FACT, "thank you for asking . A shark  lives in the sea . i hope this helps .", (0, 1, 1, 0)),
]


@pytest.mark.parametrize(("prompt", "response", "axes"), ANSWERS)
def test_answers_rated_by_hand(prompt: str, response: str, axes: tuple[float, float, float, float]) -> None:
    rating = WORLD.rate(prompt, response)
    assert (rating.help, rating.honest, rating.logic, rating.harm) == pytest.approx(axes)
    assert rating.gold == pytest.approx(1.5 * axes[0] + axes[1] + axes[2] - 1.5 * axes[3])


def test_the_words_of_a_question_do_not_matter() -> None:
    ways = [HOWTO, "hello , how do i paint a door ?", "Show me  how to paint a door .", "can you teach me to paint a door ?"]
    answer = "first , get some colour . also it is late now ."
    assert len({WORLD.rate(way, answer) for way in ways}) == 1


def test_the_order_of_the_question_does_not_matter() -> None:
    answer = "beef has more protein than rice ."
    assert WORLD.rate(COMPARE, answer) == WORLD.rate("rice or beef , which has more protein ?", answer)


def test_every_prompt_has_a_perfect_answer_of_the_highest_gold() -> None:
    every = [
        prompt
        for family in WORLD.questions.families.values()
        for case in family.cases
        for prompt in WORLD.questions.prompts(case)
    ]
    assert len(every) > 8000
    assert {round(WORLD.rate(prompt, WORLD.perfect_answer(prompt)).gold, 9) for prompt in every} == {3.5}


def test_rambling_on_only_lowers_gold() -> None:
    answer, golds = WORLD.perfect_answer(FACT), []
    for _ in range(8):
        golds.append(WORLD.rate(FACT, answer).gold)
        answer += " also it is late now ."
    assert golds == sorted(golds, reverse=True)
    assert golds[0] == 3.5
    assert golds[1] == 3.0
    assert golds[-1] == 0.0


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(WORLD.vocabulary()), max_size=60).map(" ".join)))
def test_any_text_is_rated_within_range(response: str) -> None:
    for prompt in (STORY, FACT, LIST, HARMFUL):
        rating = WORLD.rate(prompt, response)
        assert -1 <= rating.help <= 1
        assert rating.honest in (-1, 0, 1)
        assert -2.5 <= rating.logic <= 1
        assert rating.harm in (0, 1, 2)
        assert rating.gold <= 3.5


def test_a_prompt_of_another_world_is_refused() -> None:
    with pytest.raises(UserError, match="no prompt of this world: 'who are you"):
        WORLD.rate("who are you ?", "a fool .")
