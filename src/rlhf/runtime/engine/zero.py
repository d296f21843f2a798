"""DeepSpeed's ZeRO: several processes make one step, each of its own micro-batches, and keep a part of what a step needs.

A step's loss is a sum over micro-batches, so the processes' gradients are summed too. Rounds are even: where micro-batches
run out, a process computes one again and counts it as nothing, because all of them have to meet in every pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rlhf import config
from rlhf.models.recompute import enable_recomputing, recomputing
from rlhf.runtime import ranks
from rlhf.runtime.engine.adamw import adamw, check_finite
from rlhf.runtime.engine.step import Part, Step, Told

SMALL = 100_000  # weights with fewer numbers stay whole; what DeepSpeed itself takes


class _LossOf(nn.Module):
    """What DeepSpeed takes for its model: its forward is a part's loss, so that all of a step's work passes through it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.told: Any = None  # of the last part

    def forward(self, part: Part, loss_of: Callable[[Part], tuple[Tensor, Told]]) -> Tensor:
        loss, self.told = loss_of(part)
        return loss


class DeepSpeedEngine:
    """DeepSpeed's ZeRO. Where it keeps weights in parts, `state_dict` has them whole, at any depth."""

    def __init__(
        self, model: nn.Module, rate: Callable[[int], float], optimizer: config.Optimizer, engine: config.Engine
    ) -> None:
        deepspeed = _import_deepspeed(next(model.parameters()).device)
        self.model = model
        self.lr = 0.0
        self._rate = rate
        self._steps_done = 0
        self._zero_stage = engine.zero_stage
        self._parted = self._zero_stage == 3
        self._recompute = engine.gradient_checkpointing
        if self._recompute:
            enable_recomputing(model)
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._loss_of = _LossOf(model)
        self._engine, *_ = deepspeed.initialize(
            model=self._loss_of, optimizer=adamw(self._weights, optimizer), config=_settings(optimizer, engine)
        )
        if self._parted:
            for module in model.modules():
                module.register_state_dict_post_hook(partial(self._put_together))  # torch marks what it is given

    def step(self, parts: Sequence[Part], loss_of: Callable[[Part], tuple[Tensor, Told]]) -> Step[Told]:
        rounds = list(_rounds(parts, ranks.count()))
        told: dict[int, Told] = {}
        with recomputing(self.model, self._recompute):
            for places in rounds:
                self._engine.set_gradient_accumulation_boundary(places is rounds[-1])
                counts = ranks.rank() < len(places)
                place = places[ranks.rank() if counts else -1]
                loss = self._engine(parts[place], loss_of)
                self._engine.backward(loss * (ranks.count() if counts else 0))  # DeepSpeed takes the mean over processes
                if counts:
                    told[place] = self._loss_of.told
        norm = self._gradient_norm()
        check_finite(norm, self._steps_done)
        self.lr = self._rate(self._steps_done)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = self.lr
        self._engine.step()
        self._steps_done += 1
        return Step(norm, ranks.everybodys(told))

    @contextmanager
    def whole(self) -> Iterator[None]:
        if not self._parted:
            yield
            return
        offload = self._engine.optimizer.parameter_offload
        with _gathered(self.model):
            offload._remove_module_hooks()  # they would take the weights apart again after each layer
            self._parted = False
            try:
                yield
            finally:
                self._parted = True
                offload.forward_hooks, offload.backward_hooks = [], []
                offload.setup_zero_stage3_hooks()

    def _gradient_norm(self) -> float:
        """DeepSpeed's own comes after the step, when weights may be spoilt, and from ZeRO stage 0 not at all."""
        from deepspeed.utils import safe_get_full_grad

        squares = torch.zeros((), device=self._engine.device)
        for weight in self._weights:  # one whole gradient at a time
            gradient = safe_get_full_grad(weight)
            if gradient is not None:
                squares += gradient.float().square().sum().to(squares.device)
        return float(squares.sqrt())

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
        mine = state["optimizer"]
        every = ranks.everybodys({ranks.rank(): mine})
        self._engine.optimizer.load_state_dict(every if self._zero_stage else mine)
        self._steps_done = state["steps_done"]

    def _put_together(self, module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
        """Under ZeRO's third stage a module's parameters are empty between steps: here its state gets the whole ones.

        Names of one tied parameter stay one tensor, as those who write files expect.
        """
        if not self._parted:
            return
        whole: dict[int, Tensor] = {}
        with _gathered(module):
            for name, parameter in module.named_parameters(remove_duplicate=False):
                state[prefix + name] = whole.setdefault(id(parameter), parameter.detach().clone())


def _rounds(parts: Sequence[Part], processes: int) -> Iterator[list[int]]:
    """The places of the parts that processes compute at the same time. They are of one kind: what passes through other
    layers would wait in vain for the others there."""
    kinds = dict.fromkeys(type(part) for part in parts)
    for kind in kinds:
        alike = [place for place, part in enumerate(parts) if type(part) is kind]
        yield from (alike[start : start + processes] for start in range(0, len(alike), processes))


def _settings(optimizer: config.Optimizer, engine: config.Engine) -> dict[str, Any]:
    """DeepSpeed's own."""
    zero: dict[str, Any] = {"stage": engine.zero_stage, "stage3_param_persistence_threshold": SMALL}
    if engine.offload:
        zero |= {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    return {
        "train_micro_batch_size_per_gpu": 1,  # asked for, not used: the loops make their own micro-batches
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimizer.max_grad_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW steps on the CPU as well, and no extension has to be built
        "bf16": {"enabled": engine.dtype == "bfloat16"},
    }


def _gathered(model: nn.Module) -> Any:
    """A context in which ZeRO's third stage, where it is on, has put the parameters together, and takes changes to them."""
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(model.parameters()), modifier_rank=0)


def _import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, which takes seconds to import; it wants to hear of ranks and ports where there is one process, too.

    On CPU it would build its shared-memory communication in C++ at the first use, for minutes; gloo does without.
    """
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", "0")
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    if device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
