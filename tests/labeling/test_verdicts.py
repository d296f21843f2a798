"""Verdicts become rankings: which pairs are asked, what an answer says, and which order it makes."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.labeling.verdicts import (
    OTHER_WAY_ROUND,
    Pair,
    Said,
    Verdict,
    judge_figures,
    pairs_of,
    ranks_of,
    read_verdict,
    winner_of,
)
from tests.labeling.records import answered

VERDICTS: list[Verdict] = ["A", "B", "tie", "unreadable", "refused"]
DRESSES = ["{}", "**{}**", "[[{}]]", '"{}"', " {} ", "`{}`.", "({})", "_{}_", "# {}", "「{}」", "Response {}"]
DRESSES += ["Verdict: {}", "Verdict: {}\r", "**Final verdict:** {}", "My verdict is: **{}**", "The better response is {}."]
FOOTERS = ["", "\n", "\n\n  \n", "\n```", "\n---"]


# --- what an answer says -----------------------------------------------------------------------------------------------


@given(
    reasons=st.text(max_size=200),
    dress=st.sampled_from(DRESSES),
    verdict=st.sampled_from(["A", "B", "tie"]),
    footer=st.sampled_from(FOOTERS),
)
def test_a_verdict_on_the_last_line_is_read_whatever_stands_above_and_around_it(
    reasons: str, dress: str, verdict: Verdict, footer: str
) -> None:
    assert read_verdict(f"{reasons}\n{dress.format(verdict)}{footer}") == verdict


@given(st.text())
def test_any_text_is_read_without_fault_and_only_a_letter_or_a_tie_says_anything(answer: str) -> None:
    verdict = read_verdict(answer)
    assert verdict in ("A", "B", "tie", "unreadable")
    assert verdict == "unreadable" or verdict.lower() in answer.lower() or not answer.isascii()


@given(st.text(), st.sampled_from(["A", "B", "tie"]))
def test_a_verdict_with_another_word_behind_it_is_none(reasons: str, verdict: str) -> None:
    assert read_verdict(f"{reasons}\n{verdict} perhaps") == "unreadable"


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("a", "A"),
        ("b.", "B"),
        ("Tie", "tie"),
        ("TIE!", "tie"),
        ("Ａ", "A"),  # full width
        ("A is wrong.\nB is right.\n\nB", "B"),
        ("B\nA", "A"),
        ("", "unreadable"),
        ("\n \n", "unreadable"),
        ("C", "unreadable"),
        ("AB", "unreadable"),
        ("A and B", "unreadable"),
        ("A > B", "unreadable"),
        ("A, B or tie", "unreadable"),
        ("not A", "unreadable"),
        ("neither A", "unreadable"),
        ("A is better", "unreadable"),
        ("The better response is a", "unreadable"),  # cut off before the noun
        ("A\nI hope this helps.", "unreadable"),
        ("I cannot say.", "unreadable"),
        ("necktie", "unreadable"),
    ],
)
def test_answers_by_hand(answer: str, verdict: Verdict) -> None:
    assert read_verdict(answer) == verdict


# --- which pairs are asked ---------------------------------------------------------------------------------------------

texts_of_a_prompt = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=7)


@given(texts_of_a_prompt, st.integers(0, 2**63))
def test_all_pairs_are_all_pairs_of_distinct_texts_once(texts: list[str], seed: int) -> None:
    pairs = pairs_of([answered(texts)], 0, seed)
    asked = [frozenset((texts[pair.first], texts[pair.second])) for pair in pairs]
    assert len(asked) == len(set(asked))
    assert set(asked) == {frozenset(both) for both in combinations(set(texts), 2)}


@given(st.integers(2, 8), st.data())
def test_some_pairs_connect_all_texts_and_ask_each_about_as_often(count: int, data: st.DataObject) -> None:
    texts = [f"text {number}" for number in range(count)]
    most = data.draw(st.integers(count - 1, count * (count - 1) // 2))
    pairs = pairs_of([answered(texts)], most, data.draw(st.integers(0, 2**63)))
    assert len(pairs) == most
    reached = {pairs[0].first}
    for _ in texts:
        reached |= {end for pair in pairs if {pair.first, pair.second} & reached for end in (pair.first, pair.second)}
    assert reached == set(range(count))
    asked = [sum(place in (pair.first, pair.second) for pair in pairs) for place in range(count)]
    assert max(asked) - min(asked) <= 2


def test_which_pairs_are_asked_depends_on_seed_prompt_and_texts_alone() -> None:
    texts = ["one", "two", "three", "four", "five"]

    def asked(order: list[str], question: str, seed: int) -> set[frozenset[str]]:
        rows = [answered(["x", "y"], "before ?"), answered(order, question)]
        return {frozenset((order[pair.first], order[pair.second])) for pair in pairs_of(rows, 4, seed) if pair.row == 1}

    usual = asked(texts, "why ?", 1)
    assert asked(texts[::-1], "why ?", 1) == usual
    assert any(asked(texts, "why ?", seed) != usual for seed in range(2, 12))
    assert any(asked(texts, f"why {number} ?", 1) != usual for number in range(10))


# --- which order comes of it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", VERDICTS)
@pytest.mark.parametrize("backward", VERDICTS)
def test_a_pair_is_won_only_where_both_orders_name_the_same_text(forward: Verdict, backward: Verdict) -> None:
    named = {("A", "B"): 1, ("B", "A"): -1}
    assert winner_of(forward, backward) == named.get((forward, backward), 0)


@given(st.permutations(range(5)))
def test_a_judge_with_an_order_in_mind_gives_that_order(order: list[int]) -> None:
    rows = [answered(["x", "x"]), answered([f"text {number}" for number in order])]
    pairs = pairs_of(rows, 0, seed=3)
    winners = [1 if order[pair.first] < order[pair.second] else -1 for pair in pairs]
    assert ranks_of(rows, pairs, winners) == [(0, 0), tuple(order)]


def test_copeland_by_hand() -> None:
    """a beats b and c, d beats a, b and c tie, and so do d and b; c beats d: a 1, b -1, c 0, d 0."""
    rows = [answered(["a", "b", "c", "d", "a"])]
    won = {(0, 1): 1, (0, 2): 1, (3, 0): 1, (1, 2): 0, (3, 1): 0, (2, 3): 1}
    pairs = [Pair(0, first, second) for first, second in won]
    assert ranks_of(rows, pairs, list(won.values())) == [(0, 2, 1, 1, 0)]


def test_a_circle_is_a_tie() -> None:
    rows = [answered(["stone", "scissors", "paper"])]
    assert ranks_of(rows, [Pair(0, 0, 1), Pair(0, 1, 2), Pair(0, 2, 0)], [1, 1, 1]) == [(0, 0, 0)]


def test_figures_by_hand() -> None:
    said = [("A", "B"), ("A", "A"), ("tie", "tie"), ("tie", "B"), ("unreadable", "A"), ("refused", "B"), ("B", "A")]
    figures = judge_figures([(Said(one), Said(other)) for one, other in said])
    assert figures == {
        "pairs": 7,
        "questions": 14,
        "ties_said": 3,
        "parse_failures": 1,
        "refused": 1,
        "position_inconsistent": 2,  # A and A; a tie and B
        "position_inconsistent_share": 2 / 5,
        "said_first": 5 / 9,  # A five times, B four times
    }


@given(st.lists(st.tuples(st.sampled_from(VERDICTS), st.sampled_from(VERDICTS))))
def test_every_pair_is_won_tied_or_counted(said: list[tuple[Verdict, Verdict]]) -> None:
    figures = judge_figures([(Said(one), Said(other)) for one, other in said])
    agreed = sum(OTHER_WAY_ROUND.get(backward) == forward for forward, backward in said)
    unread = sum(not {*both} <= OTHER_WAY_ROUND.keys() for both in said)
    assert agreed + unread + figures["position_inconsistent"] == len(said)
