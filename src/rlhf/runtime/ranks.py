"""Several processes as one: each does a share of the work, and every one has the whole result.

What is sampled, scored and told is the same whatever their number, up to the rounding of other batch shapes: random numbers
are functions of a row's place, and results are put back in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from rlhf.runtime import launch

PATIENCE = timedelta(hours=3)  # for the first process, which alone saves states; one that has died the launcher notices

Item = TypeVar("Item")
Result = TypeVar("Result")


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is."""
    return dist.get_rank() if count() > 1 else 0


def join(device: torch.device) -> None:
    """Meets the others, where a launcher has started several."""
    if launch.count() > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)


def together(items: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
    """What the work makes of every item, in order; each process does its share. Results must be on the CPU."""
    if count() == 1:
        return [work(item) for item in items]
    mine = {i: work(items[i]) for i in range(rank(), len(items), count())}
    return everybodys(mine)


def everybodys(mine: dict[int, Result]) -> list[Result]:
    """The results of all processes, in the order of their numbers."""
    if count() == 1:
        return [mine[i] for i in sorted(mine)]
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, mine)
    every = {i: result for share in found for i, result in share.items()}
    return [every[i] for i in sorted(every)]


def of_rank_0(mine: Result) -> Result:
    """What the first of the processes has, in all of them."""
    if count() == 1:
        return mine
    shared: list[Any] = [mine]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]
