"""What there is to compute on, and how much of its memory is free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlhf.runtime import device

GIB = 2**30
LIMIT, USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


@dataclass(frozen=True, slots=True)
class Devices:
    """So many of one kind. free: bytes of each (the least), where it is a GPU; else of the whole machine.

    cpu_free: bytes of the machine's own memory.
    """

    name: str
    count: int
    free: float
    cpu_free: float
    gpu: bool

    def share(self, processes: int) -> float:
        """Bytes for each of so many processes: a GPU each, or their part of the machine's memory."""
        return self.free if self.gpu else self.free / processes


def seen(source: str) -> Devices:
    """GPUs, where the stages would compute on one (`device.choose_device`); else the CPU."""
    import torch

    if device.choose_device(device.device_choice(), source).type == "cpu":
        return Devices("CPU", 1, cpu_free(), cpu_free(), gpu=False)
    count = torch.cuda.device_count()
    free = min(torch.cuda.mem_get_info(i)[0] for i in range(count))
    return Devices(torch.cuda.get_device_name(0), count, float(free), cpu_free(), gpu=True)


def supposed(gib: float, count: int) -> Devices:
    """GPUs that are not here."""
    return Devices(f"GPU of {gib:g} GiB", count, gib * GIB, cpu_free(), gpu=True)


def cpu_free() -> float:
    """Bytes that this machine can give, or the group of processes that this one is in may still take."""
    import psutil

    available = float(psutil.virtual_memory().available)
    if LIMIT.is_file() and (limit := LIMIT.read_text().strip()) != "max":
        return min(available, float(limit) - float(USED.read_text()))
    return available
