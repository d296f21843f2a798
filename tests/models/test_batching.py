"""How rows come together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf.models.batching import Batching, even_micro_batches, micro_batches, micro_batches_of_sets
from rlhf.runtime import ranks
from tests.models.tiny_models import PAD

SETS = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=8)


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 120))
def test_micro_batches_hold_every_row_once_and_keep_to_their_size(lengths: list[int], tokens: int) -> None:
    groups = micro_batches(lengths, tokens)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= tokens
    flat = [lengths[i] for group in groups for i in group]
    assert flat == sorted(lengths, reverse=True)


def size(sets: Sequence[Sequence[int]], group: Sequence[int]) -> int:
    """Tokens with the padding."""
    lengths = [length for i in group for length in sets[i]]
    return len(lengths) * max(lengths)


def all_cuts(order: Sequence[int], most: int) -> Iterator[list[Sequence[int]]]:
    """Every way to cut an order into at most so many pieces."""
    for pieces in range(1, min(most, len(order)) + 1):
        for places in itertools.combinations(range(1, len(order)), pieces - 1):
            yield [order[start:end] for start, end in itertools.pairwise((0, *places, len(order)))]


@given(SETS, st.integers(1, 8))
def test_of_all_cuts_into_so_many_the_largest_is_the_smallest(sets: list[list[int]], count: int) -> None:
    groups = even_micro_batches(sets, 10_000, count)
    order = [i for group in groups for i in group]
    assert order == [i for group in micro_batches_of_sets(sets, 1) for i in group]
    assert len(groups) <= count
    best = min(max(size(sets, group) for group in cut) for cut in all_cuts(order, count))
    assert max(size(sets, group) for group in groups) == best


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SETS, st.integers(1, 40), st.integers(1, 5))
def test_processes_need_no_more_rounds_and_no_more_room_than_one_that_fills_its_micro_batches(
    monkeypatch: pytest.MonkeyPatch, sets: list[list[int]], tokens: int, processes: int
) -> None:
    full = micro_batches_of_sets(sets, tokens)
    monkeypatch.setattr(ranks, "count", lambda: processes)
    groups = Batching(PAD, tokens).cut_sets(sets)
    assert sorted(i for group in groups for i in group) == list(range(len(sets)))
    assert math.ceil(len(groups) / processes) <= math.ceil(len(full) / processes)
    for group in groups:
        assert len(group) == 1 or size(sets, group) <= tokens
    if processes == 1:
        assert groups == full


@pytest.mark.parametrize("processes", range(1, 9))
def test_rows_enough_give_every_process_work(monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr(ranks, "count", lambda: processes)
    assert len(Batching(PAD, 4096).cut([27, 20, 22, 21, 26, 23, 24, 25])) == processes


def test_without_rows_there_is_nothing_to_share_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "count", lambda: 2)
    assert Batching(PAD, 10).cut([]) == []
    assert Batching(PAD, 10).cut([9]) == [[0]]
