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
LEAST_CONTEXT = 1024
RESPONSES_A_CONTEXT = 4  # a response, and a prompt of three times its length
FAR = 4  # a context so many times as long as is enough is no choice of anybody's: the model came with it
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
    """Each time the cheapest that takes less with those above it, until everything fits or none is left.

    What would take less beside a dearer change alone thus comes after that one.
    """
    found: list[Suggestion] = []
    so_far, left = settings, list(candidates(settings, devices, context))
    while not (found and found[-1].fits):
        change = next((one for one in left if _takes_less(so_far, one, fits, plan)), None)
        if change is None:
            break
        left.remove(change)
        alone, together = changed(settings, change), changed(so_far, change)
        if alone is None or together is None:
            continue
        so_far = together
        found.append(Suggestion(change, plan(alone), plan(together), fits(together)))
    return found


def _takes_less(
    before: Config, change: Change, fits: Callable[[Config], bool], plan: Callable[[Config], list[Stage]]
) -> bool:
    """Whether a stage's peak falls, or everything then fits, as where there were more processes than devices. What is shared
    out already is put together again for adapters alone."""
    after = changed(before, change)
    if after is None or (after.engine.zero_stage < before.engine.zero_stage and "lora.rank" not in change):
        return False
    peaks = zip(plan(before), plan(after), strict=True)
    return any(then.total < now.total for now, then in peaks) or fits(after)


def candidates(settings: Config, devices: Devices, context: int) -> Iterator[Change]:
    """First a context that is far too long; then what costs a little time and changes results by rounding alone; then what
    rounds more; then more devices; then what learns less; last what makes every step wait for the bus."""
    engine, short = settings.engine, enough_context(settings)
    tokens = min(engine.tokens_per_micro_batch, short)
    far = context > FAR * short
    if far:
        yield {"model.max_tokens": short}
    if engine.responses_at_once > SHARE_AT_ONCE:
        yield {"engine.responses_at_once": engine.responses_at_once // SHARE_AT_ONCE}
    if engine.tokens_per_micro_batch > (longest := short if far else context):
        yield {"engine.tokens_per_micro_batch": longest}
    yield {"engine.gradient_checkpointing": True}
    yield {"engine.dtype": "bfloat16"}
    if devices.gpu:
        yield {"optimizer.bits": 8}
    if devices.gpu and devices.count > 1:
        yield {"engine.name": "zero2", "engine.processes": devices.count}
        yield {"engine.name": "zero3", "engine.processes": devices.count}
    if short < context <= FAR * short:
        yield {"model.max_tokens": short, "engine.tokens_per_micro_batch": tokens}
    if not settings.lora.rank:  # a trunk that stands still is better whole where there is room: nothing is sent around
        several = {"engine.name": "zero2", "engine.processes": devices.count} if devices.gpu and devices.count > 1 else {}
        yield {"lora.rank": RANK} | several
        if several:
            yield several | {"engine.name": "zero3"}
    if devices.gpu:  # without moments of 8 bits, which do not go with it
        yield {"engine.name": "zero3_offload", "engine.processes": devices.count, "optimizer.bits": 32}


def enough_context(settings: Config) -> int:
    """Tokens: the least power of two with room for so many of the longest responses, and no less than what is usual."""
    longest = RESPONSES_A_CONTEXT * settings.data.max_response_tokens
    return max(LEAST_CONTEXT, 1 << (longest - 1).bit_length())


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
