"""One model that learns: its weights, AdamW and a learning-rate schedule, on plain torch or on DeepSpeed.

The loops say what a step's loss is; the engine makes the step. A step's loss is the sum over its micro-batches, each
already divided by the size of the whole step, so that how a step is cut never changes what it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn

from rlhf import config
from rlhf.runtime.engine.schedule import learning_rate
from rlhf.runtime.engine.single import TorchEngine
from rlhf.runtime.engine.step import Part, Step, Told, weights_of
from rlhf.runtime.engine.zero import DeepSpeedEngine

__all__ = ["Engine", "Step", "TorchEngine", "make_engine", "weights_of"]


class Engine(Protocol):
    """What a training loop sees of either back end."""

    model: nn.Module
    lr: float  # of the last step

    def step(self, parts: Sequence[Part], loss_of: Callable[[Part], tuple[Tensor, Told]]) -> Step[Told]:
        """One optimizer step on the sum of the parts' losses. loss_of: a part's loss, and what else there is to tell of it.

        Raises:
            UserError: the norm is not finite. The weights are as they were before the step.
        """
        ...

    def whole(self) -> AbstractContextManager[None]:
        """Within it every process has all the weights, to read, sample from or save the model; no steps are made there."""
        ...

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """The weights that learn, as `weights_of` gives them. For when no more steps follow: moments stay."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What goes on with the steps to come, in one form whatever the back end and the number of processes: by the name of
        each weight that learns its float32 `masters` and its `moments`, whole, in the first process alone."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """In every process. Weights that stand still are not in it."""
        ...


def make_engine(
    model: nn.Module, lr: float, warmup_share: float, steps: int, optimizer: config.Optimizer, engine: config.Engine
) -> Engine:
    """An engine for `steps` optimizer steps on the model's parameters."""

    def rate(step: int) -> float:
        return learning_rate(step, steps, lr, warmup_share, optimizer.final_lr_share, optimizer.schedule)

    if engine.name == "single":
        return TorchEngine(model, rate, optimizer, engine)
    return DeepSpeedEngine(model, rate, optimizer, engine)
