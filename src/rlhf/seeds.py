"""Random numbers by name: every draw is a function of the seed and of what it is for, never of what was drawn before.

A training loop that is at step n can therefore say which rows and which random numbers step n uses, and nothing about
its past has to be kept to go on from there.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *labels: str | int) -> int:
    """A 63-bit seed for what the labels name: `derive_seed(seed, "ppo", "rollout", 7)`."""
    text = "/".join(str(label) for label in (seed, *labels))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def shuffled(count: int, seed: int, *labels: str | int) -> list[int]:
    """The numbers 0 to count - 1 in an order that the seed and the labels fix."""
    generator = torch.Generator().manual_seed(derive_seed(seed, *labels))
    return torch.randperm(count, generator=generator).tolist()


def draw_rows(rows: int, seed: int, start: int, count: int) -> list[int]:
    """Entries `start` to `start + count` of an endless list: all the rows in one order, then in another, and so on.

    Each row is used once an epoch, and an epoch has its own order.
    """
    wanted: list[int] = []
    for epoch in range(start // rows, (start + count - 1) // rows + 1):
        first = max(start - epoch * rows, 0)
        wanted += shuffled(rows, seed, "epoch", epoch)[first : start + count - epoch * rows]
    return wanted
