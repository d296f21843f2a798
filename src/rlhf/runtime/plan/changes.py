"""Settings that take less memory, those first that cost least, each with what it would come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rlhf.config import Config
from rlhf.runtime.plan.devices import Devices
from rlhf.runtime.plan.stages import Stage

RANK = 16
SHARE_AT_ONCE = 16  # one part in so many of the responses that are written side by side
Change = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A change, and what the stages then take, alone and with all those above it; and whether the latter fits."""

    change: Change
    alone: list[Stage]
    together: list[Stage]
    fits: bool


def suggestions(
    settings: Config, devices: Devices, context: int, fits: Callable[[Config], bool], plan: Callable[[Config], list[Stage]]
) -> list[Suggestion]:
    """Down to the first with which, and with those above it, everything fits; all of them where none does."""
    found: list[Suggestion] = []
    so_far = settings
    for change in candidates(settings, devices, context):
        alone, together = changed(settings, change), changed(so_far, change)
        if alone is None or together is None or alone == settings:
            continue
        so_far = together
        found.append(Suggestion(change, plan(alone), plan(together), fits(together)))
        if found[-1].fits:
            break
    return found


def candidates(settings: Config, devices: Devices, context: int) -> Iterator[Change]:
    """First what costs a little time and changes results by rounding alone; then what rounds more; then more devices; then
    what learns less; last what makes every step wait for the bus."""
    engine = settings.engine
    if engine.responses_at_once > SHARE_AT_ONCE:
        yield {"engine.responses_at_once": engine.responses_at_once // SHARE_AT_ONCE}
    if engine.tokens_per_micro_batch > context:
        yield {"engine.tokens_per_micro_batch": context}
    yield {"engine.gradient_checkpointing": True}
    yield {"engine.dtype": "bfloat16"}
    if devices.gpu:
        yield {"optimizer.bits": 8}
    if devices.gpu and devices.count > 1:
        yield {"engine.name": "zero2", "engine.processes": devices.count}
        yield {"engine.name": "zero3", "engine.processes": devices.count}
    if not settings.lora.rank:  # a trunk that stands still is better whole where there is room: nothing is sent around
        several = {"engine.name": "zero2", "engine.processes": devices.count} if devices.gpu and devices.count > 1 else {}
        yield {"lora.rank": RANK} | several
    if devices.gpu:  # without moments of 8 bits, which do not go with it
        yield {"engine.name": "zero3_offload", "engine.processes": devices.count, "optimizer.bits": 32}


def changed(settings: Config, change: Change) -> Config | None:
    """The settings with other values under dotted names; None where they contradict each other."""
    values = settings.model_dump()
    for key, value in change.items():
        *sections, leaf = key.split(".")
        section = values
        for name in sections:
            section = section[name]
        section[leaf] = value
    try:
        return Config.model_validate(values)
    except ValidationError:
        return None
