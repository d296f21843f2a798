"""Which kernel computes attention."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from rlhf import config
from rlhf.errors import UserError

FLASH = "flash_attention_2"


def attention_kernel(engine: config.Engine, device: torch.device) -> str | None:
    """transformers' name of the kernel; None lets transformers choose, which takes torch's own (sdpa) where a model can.

    Raises:
        UserError: flash_attention_2 is asked for, and is not there or cannot do it.
    """
    fits = device.type == "cuda" and engine.dtype == "bfloat16"
    there = find_spec("flash_attn") is not None
    match engine.attention:
        case "auto":
            return FLASH if fits and there else None
        case "flash_attention_2" if not there:
            raise UserError(
                f"engine.attention ({FLASH}) needs the package flash-attn: install it, or set engine.attention=sdpa"
            )
        case "flash_attention_2" if not fits:
            raise UserError(
                f"engine.attention ({FLASH}) needs a GPU and engine.dtype (bfloat16), and here are {device.type} and "
                f"{engine.dtype}: set engine.attention=sdpa"
            )
    return engine.attention
