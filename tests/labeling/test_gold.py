"""The simulated person orders responses as Plackett and Luce say, and nothing but the seed and the texts moves a label."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from math import exp, sqrt

import pytest

from rlhf.data.sentiment import SentimentRater
from rlhf.errors import UserError
from rlhf.labeling.gold import label_gold, refuse_the_unknown
from rlhf.labeling.pairs import of_first_prompts
from tests.labeling.records import KnownRater, answered

GOLD = {"good": 1.2, "fair": 0.5, "poor": -0.4}
RATER = KnownRater(GOLD)
TEMPERATURE = 0.7
DRAWS = 20_000


def plackett_luce(order: tuple[str, ...]) -> float:
    """The probability of an order, from the definition: each place goes to one of those left, in proportion to strength."""
    probability, left = 1.0, list(order)
    for text in order:
        probability *= exp(GOLD[text] / TEMPERATURE) / sum(exp(GOLD[other] / TEMPERATURE) for other in left)
        left.remove(text)
    return probability


@pytest.fixture(scope="module")
def orders() -> list[tuple[str, ...]]:
    """One order a seed, best first."""
    drawn, texts = [answered(list(GOLD))], list(GOLD)
    rankings = [label_gold(drawn, RATER, TEMPERATURE, seed)[0] for seed in range(DRAWS)]
    return [tuple(sorted(texts, key=lambda text: ranking.ranks[texts.index(text)])) for ranking in rankings]


def assert_share(count: int, probability: float) -> None:
    """Within four standard errors of what a binomial with this probability gives."""
    assert abs(count / DRAWS - probability) < 4 * sqrt(probability * (1 - probability) / DRAWS)


@pytest.mark.parametrize("order", list(permutations(GOLD)))
def test_every_order_is_as_likely_as_plackett_and_luce_say(orders: list[tuple[str, ...]], order: tuple[str, ...]) -> None:
    assert_share(Counter(orders)[order], plackett_luce(order))


@pytest.mark.parametrize(("better", "worse"), list(permutations(GOLD, 2)))
def test_every_pair_is_a_bradley_terry_comparison(orders: list[tuple[str, ...]], better: str, worse: str) -> None:
    first = sum(order.index(better) < order.index(worse) for order in orders)
    assert_share(first, 1 / (1 + exp(-(GOLD[better] - GOLD[worse]) / TEMPERATURE)))


def test_identical_texts_tie() -> None:
    for seed in range(20):
        (ranking,) = label_gold([answered(["good", "poor", "good", "good"])], RATER, TEMPERATURE, seed)
        assert ranking.ranks[0] == ranking.ranks[2] == ranking.ranks[3] != ranking.ranks[1]


def test_a_repeated_text_is_no_likelier_to_win() -> None:
    for seed in range(200):
        (alone,) = label_gold([answered(["good", "poor"])], RATER, TEMPERATURE, seed)
        (often,) = label_gold([answered(["good", "poor", "poor", "poor"])], RATER, TEMPERATURE, seed)
        assert (alone.ranks[0] < alone.ranks[1]) == (often.ranks[0] < often.ranks[1])


def test_neither_the_order_of_prompts_nor_that_of_responses_moves_a_label() -> None:
    texts = list(GOLD)
    prompts = [answered(texts, f"question {i} ?") for i in range(30)]
    forward = label_gold(prompts, RATER, TEMPERATURE, 3)
    backward = label_gold([answered(texts[::-1], r.prompt[0].content) for r in prompts[::-1]], RATER, TEMPERATURE, 3)[::-1]
    assert [ranking.ranks for ranking in forward] == [ranking.ranks[::-1] for ranking in backward]


def test_fewer_prompts_get_the_labels_that_they_have_among_all() -> None:
    prompts = [answered(list(GOLD), f"question {i} ?") for i in range(30)]
    whole = label_gold(prompts, RATER, TEMPERATURE, 3)
    assert label_gold(of_first_prompts(prompts, 12), RATER, TEMPERATURE, 3) == whole[:12]


def test_prompts_and_seeds_have_noise_of_their_own() -> None:
    prompts = [answered(list(GOLD), f"question {i} ?") for i in range(50)]
    ranks = [ranking.ranks for ranking in label_gold(prompts, RATER, TEMPERATURE, 0)]
    assert len(set(ranks)) > 1
    assert ranks != [ranking.ranks for ranking in label_gold(prompts, RATER, TEMPERATURE, 1)]


def test_a_cold_person_never_errs() -> None:
    for seed in range(50):
        (ranking,) = label_gold([answered(["poor", "good", "fair"])], RATER, 1e-3, seed)
        assert ranking.ranks == (2, 0, 1)


def test_the_rows_say_who_labelled_and_how() -> None:
    (ranking,) = label_gold([answered(["good", "poor"])], RATER, TEMPERATURE, 5)
    assert ranking.labeler == "gold"
    assert ranking.settings == {"temperature": TEMPERATURE, "seed": 5}
    assert (ranking.prompt, ranking.split) == (answered([]).prompt, "train")


LEARNED = SentimentRater(0.25, {"good": (1.0, 2.0), "poor": (2.0, -1.0)})


def test_responses_without_a_word_that_a_learned_rater_knows_are_counted() -> None:
    drawn = [answered(["Good.", "poor", "strange"]), answered(["other", "other", "goods 好 a"])]
    assert refuse_the_unknown(drawn, LEARNED) == {"without_known_word": 4}
    for text in ("strange", "other", "goods 好 a"):
        assert LEARNED.rate("", text).gold == LEARNED.bias
    assert refuse_the_unknown([answered(["same", "same"])], LEARNED) == {"without_known_word": 2}  # no pair at all


@pytest.mark.parametrize("texts", [["eins", "zwei", "drei"], ["good eins", "zwei good", "good"]])
def test_a_learned_rater_that_tells_nothing_apart_is_refused(texts: list[str]) -> None:
    unknown = sum("good" not in text for text in texts)
    with pytest.raises(UserError) as caught:
        refuse_the_unknown([answered(texts), answered(texts, "what ?")], LEARNED)
    assert str(caught.value).startswith(
        "label: the rater that data.rater taught tells no response from another one to the same prompt "
        f"({2 * unknown} of 6 have no word that it knows), and its labels would be noise"
    )


def test_other_raters_know_what_they_rate() -> None:
    assert refuse_the_unknown([answered(list(GOLD))], RATER) == {}  # type: ignore[arg-type]
