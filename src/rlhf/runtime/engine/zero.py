"""DeepSpeed's ZeRO: several processes make one step, each of its own micro-batches, and keep a part of what a step needs.

A step's loss is a sum over micro-batches, so the processes' gradients are summed too. Rounds are even: where micro-batches
run out, a process computes one again and counts it as nothing, because all of them have to meet in every pass.
"""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlhf import config
from rlhf.models.recompute import enable_recomputing, recomputing
from rlhf.runtime import processes, ranks
from rlhf.runtime.engine import shards
from rlhf.runtime.engine.adamw import adamw, check_finite
from rlhf.runtime.engine.step import Part, Step, Told, learning_weights

SMALL = 100_000  # weights with fewer numbers stay whole; what DeepSpeed itself takes
MAX_IDLE_SHARE = 0.2  # of the processes' passes, without a word


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
    """DeepSpeed's ZeRO."""

    def __init__(
        self, model: nn.Module, rate: Callable[[int], float], optimizer: config.Optimizer, engine: config.Engine
    ) -> None:
        deepspeed = _import_deepspeed(next(model.parameters()).device)
        self.model = model
        self.lr = 0.0
        self._rate = rate
        self._steps_done = 0
        self._zero_stage, self._offload = engine.zero_stage, engine.offload
        self._recompute = engine.gradient_checkpointing
        if self._recompute:
            enable_recomputing(model)
        self._weights = learning_weights(model)
        self._loss_of = _LossOf(model)
        self._engine, *_ = deepspeed.initialize(
            model=self._loss_of,
            optimizer=adamw(list(self._weights.values()), optimizer),
            config=_settings(optimizer, engine),
        )

    def step(self, parts: Sequence[Part], loss_of: Callable[[Part], tuple[Tensor, Told]]) -> Step[Told]:
        rounds = list(_rounds(parts, ranks.count()))
        if not self._steps_done and len(parts) < (1 - MAX_IDLE_SHARE) * len(rounds) * ranks.count():
            _say_that_some_wait(ranks.count())
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
        if self._offload:  # or only the gradients that the last round passes through are there
            self._engine.optimizer.finalize_gradient_accumulation_boundary()
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
        if self._zero_stage < 3:
            yield
            return
        offload = self._engine.optimizer.parameter_offload
        with shards.gathered(shards.apart(self.model)):
            offload._remove_module_hooks()  # they would take the weights apart again after each layer
            try:
                yield
            finally:
                offload.forward_hooks, offload.backward_hooks = [], []
                offload.setup_zero_stage3_hooks()

    def _gradient_norm(self) -> float:
        """DeepSpeed's own comes after the step, when weights may be spoilt, and from ZeRO stage 0 not at all."""
        from deepspeed.utils import safe_get_full_grad

        squares = torch.zeros((), device=self._engine.device)
        for weight in self._weights.values():  # one whole gradient at a time
            gradient = safe_get_full_grad(weight)
            if gradient is not None:
                squares += gradient.float().square().sum().to(squares.device)
        return float(squares.sqrt())

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Tensor]) -> None:
        with shards.gathered(self._weights.values()):
            for name, weight in self._weights.items():
                weight.copy_(weights[name])

    def state_dict(self) -> dict[str, Any]:
        return shards.whole(self._engine.optimizer, self._weights) | {"steps_done": self._steps_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_weights(state["masters"])
        shards.take(self._engine.optimizer, self._zero_stage, self._weights, state)
        self._steps_done = state["steps_done"]


def _rounds(parts: Sequence[Part], processes: int) -> Iterator[list[int]]:
    """The places of the parts that processes compute at the same time. They are of one kind: what passes through other
    layers would wait in vain for the others there. The first kind, which passes through every layer, comes first: the third
    stage adds to what the step before has left where a step's first round passes a weight by."""
    kinds = dict.fromkeys(type(part) for part in parts)
    for kind in kinds:
        alike = [place for place, part in enumerate(parts) if type(part) is kind]
        yield from (alike[start : start + processes] for start in range(0, len(alike), processes))


@functools.cache  # PPO has two engines
def _say_that_some_wait(many: int) -> None:
    if ranks.rank() == 0:
        processes.tell(
            f"engine: a step has too few rows for {many} processes: some wait while others work. What is learned is right, "
            f"and fewer processes lose less time. So does a multiple of {many} rows a step, which learns something else"
        )


def _settings(optimizer: config.Optimizer, engine: config.Engine) -> dict[str, Any]:
    """DeepSpeed's own."""
    zero: dict[str, Any] = {"stage": engine.zero_stage, "stage3_param_persistence_threshold": SMALL}
    if engine.offload:
        zero |= {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    return {
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",  # what micro-batches and processes add up is what one process adds up
        "train_micro_batch_size_per_gpu": 1,  # asked for, not used: the loops make their own micro-batches
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimizer.max_grad_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW steps on the CPU as well, and no extension has to be built
        "bf16": {"enabled": engine.dtype == "bfloat16"},
    }


def _import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, which takes seconds to import; it wants to hear of ranks and ports where there is one process, too.

    On CPU it would build its shared-memory communication in C++ at the first use, for minutes; gloo does without.
    """
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", "0")
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("compilers").setLevel(logging.WARNING)  # Hydra lets INFO through: how DeepSpeed looks for a compiler
    warnings.filterwarnings("ignore", "`torch.distributed.* is deprecated", FutureWarning)  # what DeepSpeed calls there
    import deepspeed
    import deepspeed.ops

    if device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
