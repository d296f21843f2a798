"""From settings to the lines of the plan."""

from __future__ import annotations

from rlhf.config import Config
from rlhf.runtime.plan.changes import suggestions
from rlhf.runtime.plan.devices import Devices
from rlhf.runtime.plan.models import models_of
from rlhf.runtime.plan.page import fits, lines_of, suggested
from rlhf.runtime.plan.stages import Stage, stages_of


def plan(config: Config, devices: Devices) -> list[str]:
    """All its lines. What is suggested changes how models are held and how long rows are, and no model's parameters."""
    models = models_of(config)
    stages = stages_of(config, models)
    lines = lines_of(config, models, stages, devices)
    if fits(stages, config, devices):
        return [*lines, "", "Everything fits."]

    def with_others(other: Config) -> list[Stage]:
        return stages_of(other, models.within(other.model.max_tokens))

    found = suggestions(
        config,
        devices,
        models.policy.context,
        fits=lambda other: fits(with_others(other), other, devices),
        plan=with_others,
    )
    return lines + suggested(found, devices.share(config.engine.processes))
