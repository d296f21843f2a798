"""Where a stage computes, and how its bits are held still: device, threads, deterministic kernels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rlhf.errors import UserError

if TYPE_CHECKING:
    import torch

CHOICES = ("auto", "cpu", "cuda")


def device_choice() -> str:
    """RLHF_DEVICE; UserError for what is none of its values."""
    choice = os.environ.get("RLHF_DEVICE") or "auto"
    if choice not in CHOICES:
        raise UserError(f"RLHF_DEVICE ({choice}) must be one of {', '.join(CHOICES)}")
    return choice


def choose_device(choice: str, source: str) -> torch.device:
    """`auto` is cuda where there is one, except for the embedded world: on the CPU its bits are comparable."""
    import torch

    available = torch.cuda.is_available()
    if choice == "cuda" and not available:
        raise UserError("RLHF_DEVICE (cuda) needs a GPU that torch can use, and it finds none: set RLHF_DEVICE=cpu")
    if choice == "auto":
        choice = "cuda" if available and source != "world" else "cpu"
    return torch.device(choice)


def pin(threads: int) -> None:
    """Same inputs, same bits: a fixed number of threads, and only kernels that sum in a fixed order.

    The thread pools of other libraries have one thread from their start (stages/_checkout.py).
    """
    import torch

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read at the first product on a GPU
    os.environ["FLASH_ATTENTION_DETERMINISTIC"] = "1"  # read by transformers, whose backward pass else adds up in any order
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms() imports the compiler, for a second
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a kernel more a tensor
    torch.backends.cudnn.benchmark = False


def meet(device: torch.device) -> None:
    """Takes the GPU that is this process's own, and meets the others, where a launcher has started several."""
    import torch

    from rlhf.runtime import launch, ranks

    if device.type == "cpu":  # transformers imports DeepSpeed, which else says that it found no GPU
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if device.type == "cuda" and launch.count() > 1:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    ranks.join(device)


def tags(device: torch.device) -> dict[str, str]:
    """What ran where, for the books."""
    import platform

    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": device.type,
        "device_name": name,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
