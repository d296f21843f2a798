"""How rows come together in passes of like length, for one process or shared out among several."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.runtime import ranks


@dataclass(frozen=True, slots=True)
class Batching:
    """How rows are put together: what fills the short ones up, and how many tokens one micro-batch holds at most."""

    pad_id: int
    tokens_per_micro_batch: int

    def cut(self, lengths: Sequence[int]) -> list[list[int]]:
        """Indices of rows in micro-batches of like length, longest first, each at most so many tokens with its padding, or
        one row. Several processes get even ones, as far as there are rows enough."""
        return self.cut_sets([[length] for length in lengths])

    def cut_sets(self, sets: Sequence[Sequence[int]]) -> list[list[int]]:
        """The same for rows that stay together: of each set the lengths of its rows. Indices of sets, most tokens first."""
        order = sorted(range(len(sets)), key=lambda i: (-sum(sets[i]), i))
        groups = _filled(sets, order, self.tokens_per_micro_batch)
        if ranks.count() == 1:
            return groups
        places = ranks.count() * math.ceil(len(groups) / ranks.count())
        return _even(sets, order, self.tokens_per_micro_batch, places)


def _filled(sets: Sequence[Sequence[int]], order: Sequence[int], tokens: int) -> list[list[int]]:
    """The sets in their order, each micro-batch as full as it gets: the fewest of at most so many tokens."""
    groups: list[list[int]] = []
    rows, width = 0, 0
    for i in order:
        rows, width = rows + len(sets[i]), max(width, *sets[i])
        if groups and rows * width <= tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
            rows, width = len(sets[i]), max(sets[i])
    return groups


def _even(sets: Sequence[Sequence[int]], order: Sequence[int], tokens: int, count: int) -> list[list[int]]:
    """Of all ways to cut the sets in their order into at most so many micro-batches, one whose largest is the smallest; with
    so many tokens they must be few enough."""
    enough = bisect.bisect_left(range(1, tokens), True, key=lambda size: len(_filled(sets, order, size)) <= count)
    return _filled(sets, order, enough + 1)
