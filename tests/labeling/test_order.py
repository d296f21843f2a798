"""Ranks follow values; noise is Bradley-Terry's. (tests/labeling/test_gold.py has the laws of the noise.)"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlhf.labeling.order import noisy_ranks, ranks_by
from tests.labeling.records import asked

numbers = st.lists(st.integers(-5, 5).map(lambda whole: whole / 2), max_size=8)


@given(numbers)
def test_a_higher_value_has_a_lower_rank_equal_ones_tie_and_no_rank_is_left_out(values: list[float]) -> None:
    ranks = ranks_by(values)
    for value, rank in zip(values, ranks, strict=True):
        assert rank == len({other for other in values if other > value})


def test_little_noise_is_none_and_much_of_it_is_not() -> None:
    worth = {"a": 2.0, "b": 1.0, "c": 0.0}
    quiet = {noisy_ranks(asked("why ?"), "abc", worth, 1e-3, seed) for seed in range(50)}
    assert quiet == {(0, 1, 2)}
    assert len({noisy_ranks(asked("why ?"), "abc", worth, 10.0, seed) for seed in range(50)}) == 6
