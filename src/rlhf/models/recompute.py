"""Gradient checkpointing (Chen et al. 2016): of each layer a pass keeps its input alone, and the way back computes the rest
again: the same bits, for a third more work.

Training mode is what switches it on in transformers. It differs in nothing else, for dropout is off in every model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel


def enable_recomputing(model: nn.Module) -> None:
    """Prepares the transformers models in it; nothing is recomputed but within `recomputing`."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            # transformers 5.18 has the second name, and warns of the first
            name = (
                "activation_checkpointing"
                if hasattr(module, "activation_checkpointing_enable")
                else "gradient_checkpointing"
            )
            getattr(module, f"{name}_enable")(**{f"{name}_kwargs": {"use_reentrant": False}})


@contextmanager
def recomputing(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Within it, if wanted, models that were prepared recompute. Outside they must not: generation would lose its cache."""
    model.train(wanted)
    try:
        yield
    finally:
        model.eval()
