"""What an optimizer step changes, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor, nn

Part = TypeVar("Part")
Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class Step(Generic[Told]):
    """norm: of the gradient before clipping. told: what the parts had to tell, in their order, whoever computed them."""

    norm: float
    told: list[Told]


def learning_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that steps change, by name; a tied one once."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of what its steps change, on the CPU: what an engine's `load_weights` takes."""
    return {name: weight.detach().to("cpu", copy=True) for name, weight in learning_weights(model).items()}
