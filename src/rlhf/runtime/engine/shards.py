"""What ZeRO keeps in parts, put together and taken apart again: weights, their float32 masters, and Adam's moments.

Whole, they fit any number of processes and either back end. (DeepSpeed's own universal checkpoints were considered: they
are made from its files afterwards, by a program of their own, and only DeepSpeed reads them.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from rlhf.runtime import ranks

MOMENTS = ("exp_avg", "exp_avg_sq")  # torch's names; beside them stands `step`, a number of its own for each weight


def gathered(weights: Iterable[nn.Parameter]) -> Any:
    """A context in which ZeRO's third stage, where it is on, has put these weights together, and takes changes to them."""
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(weights), modifier_rank=0)


def apart(model: nn.Module) -> list[nn.Parameter]:
    """Its weights that lie in parts now; a trunk of several models may have been put together for another one."""
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    return [weight for weight in model.parameters() if getattr(weight, "ds_status", None) == ZeroParamStatus.NOT_AVAILABLE]


def whole(optimizer: Any, weights: Mapping[str, nn.Parameter]) -> dict[str, dict[str, Any]]:
    """`masters` and `moments` by name, on the CPU and in the first process alone. One weight at a time is whole elsewhere.

    optimizer: of DeepSpeed's engine, in ZeRO's stage 0 torch's own.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    sharded = hasattr(optimizer, "optimizer")
    states = (optimizer.optimizer if sharded else optimizer).state
    masters: dict[str, Tensor] = {}
    moments: dict[str, dict[str, Tensor]] = {}
    for name, weight in weights.items():
        master = safe_get_full_fp32_param(weight) if sharded else weight.detach()
        state = {}
        if states:
            known = {} if sharded else states.get(weight, {})
            keys = MOMENTS if sharded or known else ()
            state = {key: safe_get_full_optimizer_state(weight, key) if sharded else known[key] for key in keys}
            if keys:
                state["step"] = next(iter(states.values()))["step"]
        if ranks.rank() == 0:
            masters[name] = master.to("cpu", copy=True)
            moments |= {name: {key: value.to("cpu", copy=True) for key, value in state.items()}} if state else {}
    return {"masters": masters, "moments": moments}


@torch.no_grad()
def take(optimizer: Any, zero_stage: int, weights: Mapping[str, nn.Parameter], state: dict[str, Any]) -> None:
    """Keeps of what `whole` gave the part that is this process's; the weights themselves have been loaded before."""
    if not state["moments"]:
        return
    moments = state["moments"]
    step = next(iter(moments.values()))["step"]
    if zero_stage == 0:
        for name, weight in weights.items():
            if name in moments:
                optimizer.state[weight] = {key: moments[name][key].to(weight.device, copy=True) for key in MOMENTS}
                optimizer.state[weight]["step"] = _counted(step, weight)
        return
    for flat in _flats(optimizer):
        zeros = {key: torch.zeros_like(flat) for key in MOMENTS}
        optimizer.optimizer.state[flat] = {**zeros, "step": _counted(step, flat)}
    if zero_stage < 3:
        optimizer._lazy_init_hp_params_optimizer_state()  # ties them to the weights, which DeepSpeed does in the first step
    for name, weight in weights.items():
        _take_one(weight, None, state["masters"][name])
        for key in MOMENTS:
            if name in moments:  # a weight without a gradient has none
                _take_one(weight, key, moments[name][key])


def _counted(step: Tensor, beside: Tensor) -> Tensor:
    """The number of steps, where AdamW wants it: its one kernel on a GPU reads it there."""
    return step.to(beside.device if beside.is_cuda else "cpu", copy=True)


def _flats(optimizer: Any) -> list[Tensor]:
    """The masters of this process's part, as Adam has them: each of DeepSpeed's optimizers has its own name for them."""
    names = ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups", "fp32_groups_flat_partition")
    (flats,) = (getattr(optimizer, name) for name in names if hasattr(optimizer, name))
    return list(flats)


def _take_one(weight: Any, key: str | None, value: Tensor) -> None:
    """The master (key None) or a moment of one weight. DeepSpeed's own way for the third stage fails where the number of
    processes does not divide the weight's size."""
    from deepspeed import utils

    if not hasattr(weight, "ds_id"):
        weight.set_full_hp_param(value.to(weight.device), key)
        return
    part = utils.safe_get_local_optimizer_state(weight, key) if key else utils.safe_get_local_fp32_param(weight)
    whole = pad(value.flatten(), (0, part.numel() * ranks.count() - value.numel()))
    part.copy_(whole.narrow(0, part.numel() * ranks.rank(), part.numel()))
