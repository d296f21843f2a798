"""How rows come together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf.models.batching import Batching
from rlhf.runtime import ranks
from tests.models.tiny_models import PAD

SETS = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=8)


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 120))
def test_micro_batches_hold_every_row_once_and_keep_to_their_size(lengths: list[int], tokens: int) -> None:
    groups = Batching(PAD, tokens).cut(lengths)
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


def with_processes(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(ranks, "count", lambda: count)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SETS, st.integers(1, 8))
def test_of_all_cuts_for_so_many_processes_the_largest_is_the_smallest(
    monkeypatch: pytest.MonkeyPatch, sets: list[list[int]], processes: int
) -> None:
    """Where all rows would fit into one micro-batch, so that one round is enough."""
    with_processes(monkeypatch, processes)
    groups = Batching(PAD, 10_000).cut_sets(sets)
    order = [i for group in groups for i in group]
    assert order == sorted(range(len(sets)), key=lambda i: (-sum(sets[i]), i))
    assert len(groups) <= processes
    best = min(max(size(sets, group) for group in cut) for cut in all_cuts(order, processes))
    assert max(size(sets, group) for group in groups) == best


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SETS, st.integers(1, 40), st.integers(1, 5))
def test_processes_need_no_more_rounds_and_no_more_room_than_one_that_fills_its_micro_batches(
    monkeypatch: pytest.MonkeyPatch, sets: list[list[int]], tokens: int, processes: int
) -> None:
    with_processes(monkeypatch, 1)
    full = Batching(PAD, tokens).cut_sets(sets)
    with_processes(monkeypatch, processes)
    groups = Batching(PAD, tokens).cut_sets(sets)
    assert sorted(i for group in groups for i in group) == list(range(len(sets)))
    assert math.ceil(len(groups) / processes) <= math.ceil(len(full) / processes)
    for group in groups:
        assert len(group) == 1 or size(sets, group) <= tokens


@pytest.mark.parametrize("processes", range(1, 9))
def test_rows_enough_give_every_process_work(monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    with_processes(monkeypatch, processes)
    assert len(Batching(PAD, 4096).cut([27, 20, 22, 21, 26, 23, 24, 25])) == processes


def test_without_rows_there_is_nothing_to_share_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with_processes(monkeypatch, 2)
    assert Batching(PAD, 10).cut([]) == []
    assert Batching(PAD, 10).cut([9]) == [[0]]
