"""A state that is saved is the whole of it: every field comes back, so what is added to a state later has to as well."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf.maths.kl import AdaptiveKL
from rlhf.records import Message, Preference
from rlhf.training.loop import LoopState, Said
from rlhf.training.ppo_state import Kept, PPOState
from tests.models.tiny_models import make_classifier, make_policy
from tests.training.table import engine_for

SAID = Said(3, [[1, 2], [3]], {"score": [0.5, -1.0]})
ENGINES = {"engine", "policy", "critic"}  # whose own states tests/runtime/test_engine.py holds


def loop_state() -> LoopState:
    return LoopState(engine_for(make_policy("llama")))


def ppo_state() -> PPOState:
    policy, critic = engine_for(make_policy("llama")), engine_for(make_classifier("llama"))
    return PPOState(policy, critic, AdaptiveKL(0.2, 6.0, 10_000.0))


def changed(state: LoopState | PPOState) -> dict[str, Any]:
    """Another value for each of its fields."""
    if isinstance(state, LoopState):
        preference = Preference((Message("user", "p"),), "good", "bad", "train", "gold", chosen_token_ids=(1, 2), margin=0.5)
        other = {"step": 4, "round": 2, "first": 3, "preferences": [preference], "learnt": Counter(pairs=5)}
    else:
        kept = Kept(3, 0.7, {"a": torch.tensor([1.0])})
        other = {"kl": AdaptiveKL(0.3, 6.0, 10_000.0), "step": 4, "best_score": 0.7, "evaluations_since_best": 2}
        other |= {"kept": kept, "stopped_by": "kl_budget", "explained": True}
    return {"said": [SAID], **other}


@pytest.mark.parametrize("make", [loop_state, ppo_state])
def test_every_field_comes_back(make: Any, tmp_path: Path) -> None:
    state, fresh = make(), make()
    values = changed(state)
    assert {each.name for each in fields(state)} - ENGINES == set(values)
    for name, value in values.items():
        assert getattr(state, name) != value, f"{name}: nothing to see"
        setattr(state, name, value)
    torch.save(state.state_dict(), tmp_path / "state.pt")
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for name, value in values.items():
        assert getattr(fresh, name) == value, name
