"""Plain torch in one process.

A step of AdamW at 1e-6 leaves 99 of 100 bfloat16 weights where they were. So weights in bfloat16 have masters in float32:
gradients are added up there, moments are of them, and what the model computes with is their rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rlhf import config
from rlhf.models.recompute import enable_recomputing, recomputing
from rlhf.runtime.engine.adamw import adamw, check_finite
from rlhf.runtime.engine.step import Part, Step, Told, learning_weights


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
        self._weights = learning_weights(model)
        self._masters = {name: _master(weight) for name, weight in self._weights.items()}
        self._optimizer = adamw(list(self._masters.values()), optimizer)

    def step(self, parts: Sequence[Part], loss_of: Callable[[Part], tuple[Tensor, Told]]) -> Step[Told]:
        self._optimizer.zero_grad(set_to_none=True)
        told = []
        with recomputing(self.model, self._recompute):
            for part in parts:
                loss, about = loss_of(part)
                loss.backward()
                told.append(about)
        norm = float(nn.utils.clip_grad_norm_(self._masters.values(), self._max_grad_norm))
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
        for name, weight in self._weights.items():
            if weight is not self._masters[name]:
                weight.copy_(self._masters[name])

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Tensor]) -> None:
        for name, master in self._masters.items():
            master.copy_(weights[name])
        self._round()

    def state_dict(self) -> dict[str, Any]:
        moments = self._optimizer.state_dict()["state"]
        return {
            "masters": {name: master.detach() for name, master in self._masters.items()},
            "moments": {name: moments[place] for place, name in enumerate(self._masters) if place in moments},
            "steps_done": self._steps_done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_weights(state["masters"])
        saved = copy.deepcopy(state["moments"])  # torch would go on in them, and they may be those of a file
        moments = {place: saved[name] for place, name in enumerate(self._masters) if name in saved}
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": moments})
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
