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
        """`micro_batches` of these rows; several processes get the same work, as far as there are rows enough."""
        return self.cut_sets([[length] for length in lengths])

    def cut_sets(self, sets: Sequence[Sequence[int]]) -> list[list[int]]:
        """The same for rows that stay together."""
        many, most = ranks.count(), self.tokens_per_micro_batch
        groups = micro_batches_of_sets(sets, most)
        return groups if many == 1 else even_micro_batches(sets, most, many * math.ceil(len(groups) / many))


def micro_batches(lengths: Sequence[int], tokens_per_micro_batch: int) -> list[list[int]]:
    """Indices of rows in groups of like length, longest first, each at most so many tokens with its padding (or one row)."""
    return micro_batches_of_sets([[length] for length in lengths], tokens_per_micro_batch)


def micro_batches_of_sets(sets: Sequence[Sequence[int]], tokens_per_micro_batch: int) -> list[list[int]]:
    """The same for rows that stay together: of each set the lengths of its rows. Indices of sets, most tokens first."""
    order = sorted(range(len(sets)), key=lambda i: (-sum(sets[i]), i))
    groups: list[list[int]] = []
    rows, width = 0, 0
    for i in order:
        rows, width = rows + len(sets[i]), max(width, *sets[i])
        if groups and rows * width <= tokens_per_micro_batch:
            groups[-1].append(i)
        else:
            groups.append([i])
            rows, width = len(sets[i]), max(sets[i])
    return groups


def even_micro_batches(sets: Sequence[Sequence[int]], tokens_per_micro_batch: int, count: int) -> list[list[int]]:
    """Of all ways to cut the sets, in their order, into at most so many micro-batches, one whose largest is the smallest.
    There must be such a way with `tokens_per_micro_batch`."""
    sizes = range(1, tokens_per_micro_batch)
    enough = bisect.bisect_left(sizes, True, key=lambda size: len(micro_batches_of_sets(sets, size)) <= count)
    return micro_batches_of_sets(sets, enough + 1)
