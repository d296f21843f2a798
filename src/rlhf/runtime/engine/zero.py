"""DeepSpeed's ZeRO."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rlhf import config
from rlhf.errors import UserError
from rlhf.runtime.engine.adamw import adamw, check_finite

Part = TypeVar("Part")


class _LossOf(nn.Module):
    """What DeepSpeed takes for its model: its forward is a part's loss, so that all of a step's work passes through it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, part: Part, loss_of: Callable[[Part], Tensor]) -> Tensor:
        return loss_of(part)


class DeepSpeedEngine:
    """DeepSpeed's ZeRO in one process. Where it keeps weights in parts, `state_dict` has them whole, at any depth."""

    def __init__(
        self, model: nn.Module, rate: Callable[[int], float], optimizer: config.Optimizer, engine: config.Engine
    ) -> None:
        deepspeed = _import_deepspeed(next(model.parameters()).device)
        settings = {
            "train_micro_batch_size_per_gpu": 1,  # asked for, not used: the loops make their own micro-batches
            "gradient_accumulation_steps": 1,
            "gradient_clipping": optimizer.max_grad_norm,
            "zero_optimization": {"stage": engine.zero_stage, "stage3_param_persistence_threshold": 0},
            "zero_allow_untested_optimizer": True,
        }
        self.model = model
        self.lr = 0.0
        self._rate = rate
        self._steps_done = 0
        self._zero_stage = engine.zero_stage
        learning = [weight for weight in model.parameters() if weight.requires_grad]
        self._engine, *_ = deepspeed.initialize(model=_LossOf(model), optimizer=adamw(learning, optimizer), config=settings)
        if self._zero_stage == 3:
            for module in model.modules():
                module.register_state_dict_post_hook(_whole_weights)

    def step(self, parts: Sequence[Part], loss_of: Callable[[Part], Tensor]) -> float:
        for i, part in enumerate(parts):
            self._engine.set_gradient_accumulation_boundary(i == len(parts) - 1)
            self._engine.backward(self._engine(part, loss_of))
        norm = self._gradient_norm()
        check_finite(norm, self._steps_done)
        self.lr = self._rate(self._steps_done)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = self.lr
        self._engine.step()
        self._steps_done += 1
        return norm

    def _gradient_norm(self) -> float:
        """DeepSpeed's own comes after the step, when weights may be spoilt, and from ZeRO stage 0 not at all."""
        from deepspeed.utils import safe_get_full_grad

        gradients = [safe_get_full_grad(p) for p in self.model.parameters() if p.requires_grad]
        return float(nn.utils.get_total_norm([g for g in gradients if g is not None]))

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        with _gathered(self.model):
            self.model.load_state_dict(weights)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self._engine.optimizer.state_dict(),
            "steps_done": self._steps_done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_weights(state["model"])
        # From stage 1 on the optimizer belongs to ZeRO, which takes the states of all ranks, and has the weights as well.
        self._engine.optimizer.load_state_dict([state["optimizer"]] if self._zero_stage else state["optimizer"])
        self._steps_done = state["steps_done"]


def _gathered(model: nn.Module) -> Any:
    """A context in which ZeRO's third stage, where it is on, has put the parameters together, and takes changes to them."""
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(model.parameters()), modifier_rank=0)


def _whole_weights(module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """Under ZeRO's third stage a module's parameters are empty between steps: here its state gets the whole ones.

    Names of one tied parameter stay one tensor, as those who write files expect.
    """
    whole: dict[int, Tensor] = {}
    with _gathered(module):
        for name, parameter in module.named_parameters(remove_duplicate=False):
            state[prefix + name] = whole.setdefault(id(parameter), parameter.detach().clone())


def _import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, which takes seconds to import, set up for one process.

    On CPU it would build its shared-memory communication in C++ at the first use, for minutes; one process needs none.
    """
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", "0")
    if os.environ["WORLD_SIZE"] != "1":
        raise UserError(f"WORLD_SIZE ({os.environ['WORLD_SIZE']}) must be 1: a stage runs in one process")
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    if device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
