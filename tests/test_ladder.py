"""The named configurations are what docs/spec.md says of them: the ladder, the ways without a critic of its own, rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhf.config import Config
from rlhf.runtime import settings

ROOT = Path(__file__).resolve().parents[1]
# The rungs of section 4: what each turns on, beside all that the rungs before it have.
TURNS_ON: dict[str, set[str]] = {
    "step_1": set(),
    "step_2": {"weight"},
    "step_3": {"kl_ctl"},
    "step_4": {"lam"},
    "step_5": {"ppo_epochs", "responses_per_minibatch"},
    "step_6": {"clip_range", "whiten_advantages", "value_clip"},
}


def compose(*overrides: str) -> Config:
    return settings.validate(settings.values_of(settings.compose(ROOT, overrides)))


def ppo_of(*overrides: str) -> dict[str, Any]:
    return compose(*overrides).ppo.model_dump()


def changed(ppo: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in ppo.items() if value != default[name]}


def test_the_default_is_the_whole_ladder() -> None:
    ppo = compose().ppo
    assert (ppo.weight, ppo.advantage, ppo.critic_target, ppo.clip_range) == ("advantage", "gae", "gae", 0.2)
    assert ppo.whiten_advantages
    assert min(ppo.kl_ctl, ppo.lam, ppo.value_clip) > 0
    assert ppo.ppo_epochs > 1
    assert ppo.responses_per_minibatch < ppo.responses_per_step


@pytest.mark.parametrize("rung", list(TURNS_ON))
@pytest.mark.parametrize("responses", [64, 128])
def test_a_rung_has_what_the_ladder_has_turned_on_by_then_and_nothing_more(rung: str, responses: int) -> None:
    size = f"ppo.responses_per_step={responses}"
    default = ppo_of(size)
    off = {"weight": "action_value", "kl_ctl": 0.0, "lam": 0.0, "ppo_epochs": 1, "responses_per_minibatch": responses}
    off |= {"clip_range": None, "whiten_advantages": False, "value_clip": 0.0}
    for name in TURNS_ON:
        off = {setting: value for setting, value in off.items() if setting not in TURNS_ON[name]}
        if name == rung:
            break
    found = changed(ppo_of(f"ppo={rung}", size), default)
    if "lam" in off:  # the target of (10) with a λ of 0 is the one-step target, under another name
        found.pop("critic_target", None)
    assert found == off


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("rloo", {"advantage": "rloo", "critic": "none", "whiten_advantages": False, "critic_warmup_steps": 0}),
        (
            "grpo",
            {"advantage": "grpo", "critic": "none", "whiten_advantages": False, "critic_warmup_steps": 0, "kl_in": "loss"},
        ),
        ("shared", {"critic": "shared", "critic_warmup_steps": 0}),
    ],
)
def test_without_a_critic_of_its_own_nothing_else_is_otherwise(choice: str, says: dict[str, Any]) -> None:
    """But for the number of responses that are compared, or the weight of L_critic in L_total (SPEC eq. 14)."""
    found = changed(ppo_of(f"ppo={choice}"), ppo_of())
    assert found.pop("w_c" if choice == "shared" else "responses_per_prompt") > (0 if choice == "shared" else 1)
    assert found == says


def test_iterated_dpo_has_three_rounds_and_is_dpo_otherwise() -> None:
    iterated, default = compose("experiment=iterated_dpo").model_dump(), compose().model_dump()
    assert (default["dpo"].pop("rounds"), iterated["dpo"].pop("rounds")) == (1, 3)
    assert iterated == default
