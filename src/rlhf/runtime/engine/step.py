"""What an optimizer step leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Part = TypeVar("Part")
Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class Step(Generic[Told]):
    """norm: of the gradient before clipping. told: what the parts had to tell, in their order, whoever computed them."""

    norm: float
    told: list[Told]
