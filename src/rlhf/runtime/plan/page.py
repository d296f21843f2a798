"""The plan as plain text, a hundred columns wide."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf.config import Config
from rlhf.runtime.messages import shown
from rlhf.runtime.plan.changes import Suggestion
from rlhf.runtime.plan.devices import GIB, Devices
from rlhf.runtime.plan.models import Models
from rlhf.runtime.plan.rules import Pass, State
from rlhf.runtime.plan.stages import Stage

COLUMNS = {  # and how wide they are
    "weights": 9,
    "masters": 9,
    "gradients": 11,
    "moments": 9,
    "activations": 13,
    "logits": 9,
    "cache": 9,
    "GiB": 10,
}
NAME, PEAK = 20, 10


def lines_of(settings: Config, models: Models, stages: Sequence[Stage], devices: Devices) -> list[str]:
    """Models, devices, and every stage beside what a process may take."""
    capacity = devices.share(settings.engine.processes)
    lines = [*_heading(settings, models, devices), "", _row("GiB a process", list(COLUMNS))]
    for stage in stages:
        lines += ["", stage.name]
        lines += [_row(f"  {model}", _state_cells(state)) for model, state in stage.held.items()]
        lines += [_row(f"  + {one.name}", _pass_cells(one)) for one in stage.passes]
        lines.append(f"  {verdict(stage, capacity)}{_waiting(stage, settings, devices)}")
    return lines


def fits(stages: Sequence[Stage], settings: Config, devices: Devices) -> bool:
    """Whether every stage does, and there is a device for every process."""
    processes = settings.engine.processes
    if devices.gpu and processes > devices.count:
        return False
    enough = all(stage.waiting * processes <= devices.cpu_free for stage in stages)
    return enough and all(stage.total <= devices.share(processes) for stage in stages)


def verdict(stage: Stage, capacity: float) -> str:
    """Of one stage at its peak: all models and the largest of its passes."""
    need = f"{_gib(stage.total)} of {_gib(capacity)} GiB"
    return f"fits: {need}" if stage.total <= capacity else f"does not fit: needs {need}"


def suggested(found: Sequence[Suggestion], capacity: float) -> list[str]:
    """The changes, the cheapest first, each with the peak of every stage."""
    names = [stage.name for stage in found[0].alone] if found else []
    lines = ["", "What takes less, the cheapest first (* fits)", _peaks("GiB a process", names)]
    for one in found:
        lines.append("  " + " ".join(f"{key}={shown(value)}" for key, value in one.change.items()))
        lines.append(_peaks("    alone", [_judged(stage.total, capacity) for stage in one.alone]))
        if one is not found[0]:
            lines.append(_peaks("    with those above", [_judged(stage.total, capacity) for stage in one.together]))
    end = (
        "With all of these everything fits."
        if found and found[-1].fits
        else "All of these are not enough: take a smaller model, or larger devices."
    )
    return [*lines, "", end]


def _heading(settings: Config, models: Models, devices: Devices) -> list[str]:
    engine, lora = settings.engine, settings.lora
    place = "trained here" if settings.model.tiny else settings.model.place[0]
    how = [engine.dtype, f"engine {engine.name}", f"{engine.processes} process{'es' if engine.processes > 1 else ''}"]
    how += [f"adapters of rank {lora.rank}"] if lora.rank else []
    how += ["gradient checkpointing"] if engine.gradient_checkpointing else []
    lines = [f"model {settings.model.name} ({place}), context {models.policy.context}; {', '.join(how)}"]
    lines += [f"  {name:<14}{sizes.parameters:>16,} parameters" for name, sizes in models.named().items()]
    lines.append(
        f"{devices.count} x {devices.name}, {_gib(devices.free)} GiB free" + ("" if devices.gpu else " for all processes")
    )
    if devices.gpu and engine.processes > devices.count:
        lines.append(
            f"engine.processes ({engine.processes}) are more than the GPUs here ({devices.count}): one each is needed"
        )
    return lines


def _waiting(stage: Stage, settings: Config, devices: Devices) -> str:
    if not stage.waiting:
        return ""
    need = stage.waiting * settings.engine.processes
    enough = "" if need <= devices.cpu_free else ", which is too much"
    return f"; and {_gib(need)} of {_gib(devices.cpu_free)} GiB of the CPU's memory{enough}"


def _state_cells(state: State) -> list[str]:
    kept = [_cell(x) for x in (state.weights, state.masters, state.gradients, state.moments)]
    return [*kept, _cell(0), _cell(0), _cell(0), _cell(state.total)]


def _pass_cells(one: Pass) -> list[str]:
    during = (one.weights, 0, 0, 0, one.activations, one.logits, one.cache, one.total)
    return [_cell(x) for x in during]


def _judged(need: float, capacity: float) -> str:
    return f"{_gib(need)}{'*' if need <= capacity else ' '}"


def _row(name: str, cells: Sequence[str]) -> str:
    return name.ljust(NAME) + "".join(cell.rjust(wide) for cell, wide in zip(cells, COLUMNS.values(), strict=True)).rstrip()


def _peaks(name: str, cells: Sequence[str]) -> str:
    return name.ljust(NAME) + "".join(cell.rjust(PEAK) for cell in cells).rstrip()


def _cell(number: float) -> str:
    return _gib(number) if number else ""


def _gib(number: float) -> str:
    return f"{number / GIB:,.1f}"
