"""Text measures against their definitions."""

from __future__ import annotations

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.data.words import words
from rlhf.evaluation.measures import best_of_n_kl_bound, distinct, rouge_l, share_closed

sentences = st.lists(st.sampled_from(["a", "bee", "see", "dee"]), max_size=8)


def longest_common_subsequence(a: list[str], b: list[str]) -> int:
    """By the textbook's table."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(sentences, sentences)
def test_rouge_l_is_the_harmonic_mean_of_precision_and_recall(candidate: list[str], reference: list[str]) -> None:
    common = longest_common_subsequence(candidate, reference)
    precision, recall = common / max(len(candidate), 1), common / max(len(reference), 1)
    expected = 2 * precision * recall / (precision + recall) if common else 0.0
    assert rouge_l(candidate, reference) == pytest.approx(expected)


def test_rouge_l_by_hand() -> None:
    assert rouge_l(words("the cat sat on the mat ."), words("The cat lay on the mat!")) == 5 / 6
    assert rouge_l([], []) == rouge_l(["a"], []) == 0.0


def test_distinct_by_hand() -> None:
    texts = [["a", "b", "a"], ["a", "b"], []]
    assert distinct(texts, 1) == 2 / 5
    assert distinct(texts, 2) == 2 / 3
    assert distinct([["a"], []], 2) == 0.0


def test_the_best_of_one_is_the_policy_itself() -> None:
    assert best_of_n_kl_bound(1) == 0.0
    assert best_of_n_kl_bound(4) == pytest.approx(log(4) - 0.75)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_kl_bound_is_met_where_all_scores_differ(n: int) -> None:
    """On many equally likely answers with scores of their own, the k-th best has probability ((m-k+1)^n - (m-k)^n) / m^n."""
    m = 4000
    chosen = [((k + 1) ** n - k**n) / m**n for k in range(m)]
    divergence = sum(p * log(p * m) for p in chosen)
    assert divergence == pytest.approx(best_of_n_kl_bound(n), abs=2e-3)
    assert divergence < best_of_n_kl_bound(n)


def test_share_closed_by_hand() -> None:
    assert share_closed(1.5, start=-0.5, perfect=3.5) == 0.5
    assert share_closed(-1.5, start=-0.5, perfect=3.5) == -0.25
    assert share_closed(2.0, start=2.0, perfect=2.0) == 0.0
