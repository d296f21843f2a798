"""The best of n against every choice of n, and the frontier against its definition."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.evaluation.frontier import best_of_n, pareto

few_levels = st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 5)), min_size=1, max_size=7)


def best_of_all_choices(rewards: list[int], values: list[int], n: int) -> float:
    found = []
    for chosen in combinations(range(len(rewards)), n):
        top = max(rewards[i] for i in chosen)
        best = [values[i] for i in chosen if rewards[i] == top]
        found.append(sum(best) / len(best))
    return sum(found) / len(found)


@given(few_levels)
def test_the_best_of_n_is_the_mean_over_every_choice_of_n(answers: list[tuple[int, int]]) -> None:
    rewards, values = ([pair[i] for pair in answers] for i in (0, 1))
    for n in range(1, len(answers) + 1):
        found = best_of_n(np.array([rewards], dtype=float), np.array([values], dtype=float), n)
        assert found[0] == pytest.approx(best_of_all_choices(rewards, values, n), abs=1e-12)


def test_every_prompt_is_on_its_own() -> None:
    rewards = np.array([[1.0, 2.0, 3.0], [3.0, 3.0, 0.0]])
    values = np.array([[10.0, 20.0, 30.0], [4.0, 6.0, 100.0]])
    assert best_of_n(rewards, values, 1) == pytest.approx([20.0, 110 / 3])
    assert best_of_n(rewards, values, 2) == pytest.approx([(20 + 30 + 30) / 3, 5.0])
    assert best_of_n(rewards, values, 3) == pytest.approx([30.0, 5.0])


@pytest.mark.parametrize("n", [1, 2, 16, 128, 255, 256])
def test_the_highest_of_n_of_the_first_256_whole_numbers_is_known(n: int) -> None:
    """The mean of the largest of n numbers drawn from 1 to M is n (M + 1) / (n + 1)."""
    numbers = np.random.default_rng(0).permutation(np.arange(1.0, 257.0))[None]
    assert best_of_n(numbers, numbers, n)[0] == pytest.approx(n * 257 / (n + 1), rel=1e-13)


@pytest.mark.parametrize("n", [-1, 0, 4])
def test_more_answers_than_there_are_or_none_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"best of {n} of 3 answers"):
        best_of_n(np.zeros((2, 3)), np.zeros((2, 3)), n)


def test_a_frontier_by_hand() -> None:
    kl = [4.0, 0.0, 2.0, 2.0, 9.0, 4.0, 1.0]
    score = [3.0, 0.0, 1.0, 2.0, 2.9, 3.0, -1.0]
    assert pareto(kl, score) == [1, 3, 0, 5]  # 4 pays more for less than 0 and 5, which are equal; 2 has 3 above it
    assert pareto([], []) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_every_point_left_out_is_beaten_by_one_on_the_frontier_and_none_on_it_is(points: list[tuple[int, int]]) -> None:
    kl, score = [float(k) for k, _ in points], [float(s) for _, s in points]
    frontier = pareto(kl, score)
    assert [kl[i] for i in frontier] == sorted(kl[i] for i in frontier)
    for i in range(len(points)):
        beaten = [j for j in frontier if kl[j] <= kl[i] and score[j] >= score[i] and points[j] != points[i]]
        assert bool(beaten) == (i not in frontier)
