"""Random ragged batches for property tests, as plain lists, and their padded tensors with garbage in the padding."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.helpers import NAN, lengths_to_mask
from tests.maths.twins import Rows

GARBAGE = (NAN, float("inf"), -float("inf"), 1e30, -1e9)


def numbers(low: float = -5.0, high: float = 5.0) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, width=32).map(lambda x: round(x, 4))


@st.composite
def ragged(draw: st.DrawFn, tensors: int, low: float = -5.0, high: float = 5.0) -> list[Rows]:
    """`tensors` batches of the same 1-4 responses of 1-6 tokens."""
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    row = [st.lists(numbers(low, high), min_size=n, max_size=n) for n in lengths]
    return [[draw(strategy) for strategy in row] for _ in range(tensors)]


def to_padded(batch: list[Rows], extra: int = 1, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor]:
    """Each of the batches as (B, R), right-padded with garbage of every kind, and their common mask."""
    lengths = [len(row) for row in batch[0]]
    width = max(lengths) + extra
    mask = lengths_to_mask(lengths, width)
    tensors = []
    for rows in batch:
        tensor = torch.tensor([GARBAGE[i % len(GARBAGE)] for i in range(mask.numel())], dtype=dtype).reshape(mask.shape)
        for i, row in enumerate(rows):
            tensor[i, : len(row)] = torch.tensor(row, dtype=dtype)
        tensors.append(tensor)
    return tensors, mask
