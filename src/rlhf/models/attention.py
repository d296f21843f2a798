"""Which kernel computes attention."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.utils import is_flash_attn_2_available

from rlhf import config
from rlhf.errors import UserError

FLASH = "flash_attention_2"


def attention_kernel(engine: config.Engine, device: torch.device, auto: Any, settings: PretrainedConfig) -> str | None:
    """transformers' name of the kernel; None lets transformers choose, which takes torch's own (sdpa) where a model can.

    auto: what makes the model of its config (`AutoModelForCausalLM`, …).

    Raises:
        UserError: flash_attention_2 is asked for, and is not there or cannot do it.
    """
    fits = device.type == "cuda" and engine.dtype == "bfloat16"
    match engine.attention:
        case "auto":
            return FLASH if fits and is_flash_attn_2_available() and _takes_flash(auto, settings) else None
        case "flash_attention_2" if not fits:
            raise UserError(
                f"engine.attention ({FLASH}) needs a GPU and engine.dtype (bfloat16), and here are {device.type} and "
                f"{engine.dtype}: set engine.attention=sdpa"
            )
        case "flash_attention_2" if not is_flash_attn_2_available():
            raise UserError(
                f"engine.attention ({FLASH}) needs the package flash-attn: install it, or set engine.attention=sdpa"
            )
        case "flash_attention_2" if not _takes_flash(auto, settings):
            raise UserError(
                f"engine.attention ({FLASH}) does not go with the architecture {settings.model_type}, of which transformers "
                "has no such attention: set engine.attention=auto"
            )
    return engine.attention


def _takes_flash(auto: Any, settings: PretrainedConfig) -> bool:
    """What the model's class says of itself; of some it says that they need a kernel of another version."""
    with torch.device("meta"):
        kind = type(auto.from_config(settings, trust_remote_code=False))
    others = kind._compatible_flash_implementations
    return bool(kind._supports_flash_attn) and (others is None or FLASH in others)
