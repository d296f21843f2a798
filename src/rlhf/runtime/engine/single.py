"""Plain torch in one process.

A step of AdamW at 1e-6 leaves 99 of 100 bfloat16 weights where they were. So weights in bfloat16 have masters in float32:
gradients are added up there, moments are of them, and what the model computes with is their rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rlhf import config
from rlhf.models.recompute import enable_recomputing, recomputing
from rlhf.runtime.engine.adamw import adamw, check_finite
from rlhf.runtime.engine.step import Part, Step, Told


class TorchEngine:
    """Plain torch on one device."""

    def __init__(
        self, model: nn.Module, rate: Callable[[int], float], optimizer: config.Optimizer, engine: config.Engine
    ) -> None:
        self.model = model
        self.lr = 0.0
        self._rate = rate
        self._steps_done = 0
        self._max_grad_norm = optimizer.max_grad_norm
        self._recompute = engine.gradient_checkpointing
        if self._recompute:
            enable_recomputing(model)
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._masters = [_master(weight) for weight in self._weights]
        self._optimizer = adamw(self._masters, optimizer)

    def step(self, parts: Sequence[Part], loss_of: Callable[[Part], tuple[Tensor, Told]]) -> Step[Told]:
        self._optimizer.zero_grad(set_to_none=True)
        told = []
        with recomputing(self.model, self._recompute):
            for part in parts:
                loss, about = loss_of(part)
                loss.backward()
                told.append(about)
        norm = float(nn.utils.clip_grad_norm_(self._masters, self._max_grad_norm))
        check_finite(norm, self._steps_done)
        self.lr = self._rate(self._steps_done)
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr
        self._optimizer.step()
        self._round()
        self._steps_done += 1
        return Step(norm, told)

    def whole(self) -> AbstractContextManager[None]:
        return nullcontext()

    @torch.no_grad()
    def _round(self) -> None:
        """What the model computes with is its masters' rounding."""
        for weight, master in zip(self._weights, self._masters, strict=True):
            if weight is not master:
                weight.copy_(master)

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.model.load_state_dict(weights)
        for weight, master in zip(self._weights, self._masters, strict=True):
            if weight is not master:
                master.copy_(weight)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "masters": [master.detach() for master in self._masters],
            "optimizer": self._optimizer.state_dict(),
            "steps_done": self._steps_done,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_weights(state["model"])
        for master, saved in zip(self._masters, state["masters"], strict=True):
            master.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._steps_done = state["steps_done"]


def _master(weight: nn.Parameter) -> nn.Parameter:
    """The weight itself, or its float32 twin that takes its gradients; the weight then keeps none."""
    if weight.dtype != torch.bfloat16:
        return weight
    master = nn.Parameter(weight.detach().float())
    weight.register_post_accumulate_grad_hook(partial(_hand_over, master))
    return master


def _hand_over(master: nn.Parameter, weight: Tensor) -> None:
    assert weight.grad is not None
    gradient = weight.grad.float()
    master.grad = gradient if master.grad is None else master.grad.add_(gradient)
    weight.grad = None
