"""Run by a test in one process or in several: every loop on one engine. Rank 0 leaves figures, weights and the states at
which loops were stopped beside each other.

python -m tests.runtime.ranks_run FILE ENGINE DTYPE [FILE OF ANOTHER RUN]
torchrun --nproc_per_node 2 --module tests.runtime.ranks_run FILE ENGINE DTYPE [FILE OF ANOTHER RUN]
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlhf import config
from rlhf.models.adapters import BASE, adapt
from rlhf.models.batching import Batching
from rlhf.runtime import ranks
from rlhf.runtime.engine import Engine, make_engine, zero
from rlhf.training.dpo import PairedExamples, train_dpo, with_reference
from rlhf.training.loop import LoopState, Passes
from rlhf.training.ppo import train_ppo
from rlhf.training.ppo_setup import make_state
from rlhf.training.ppo_state import PPOState, policy_of
from rlhf.training.reward import RankedExamples, train_reward
from rlhf.training.sft import train_sft
from tests.models.tiny_models import PAD, make_classifier, make_policy
from tests.training.by_loop import EXAMPLES, groups
from tests.training.table import (
    SHARED,
    all_settings,
    dpo_settings,
    engine_settings,
    environment_for,
    optimizer,
    ppo_settings,
    weights,
)

# A large epsilon keeps Adam from making a step of rounding.
ADAMW = optimizer(final_lr_share=0.1, weight_decay=0.01, max_grad_norm=0.5, eps=1e-4)
STEPS = 6
PASSES = Passes(epochs=3, rows_per_step=4, eval_every_steps=2, seed=3)  # of 8 rows
FEW, MANY = Batching(PAD, 40), Batching(PAD, 12)  # micro-batches of a step
Rows = Iterator[dict[str, float]]
STOP_AFTER = 3  # rows


DTYPE = "float32"  # changed by what runs this


def batching() -> Batching:
    """In bfloat16 so many that one process has to cut its steps as two do: each micro-batch's gradient is rounded."""
    return FEW if DTYPE == "float32" else MANY


def settings_of(name: str) -> config.Engine:
    return engine_settings(name=name, processes=1 if name == "single" else ranks.count(), dtype=DTYPE)


def engine_of(model: nn.Module, name: str) -> Engine:
    return make_engine(model, 1e-2, 0.2, STEPS, ADAMW, settings_of(name))


def sft(name: str) -> tuple[Rows, LoopState]:
    state = LoopState(engine_of(make_policy("llama", precision=DTYPE), name))
    return train_sft(state, EXAMPLES, EXAMPLES[:3], PASSES, batching()), state


def adapters(name: str) -> tuple[Rows, LoopState]:
    """Nothing but adapters learns."""
    policy = make_policy("llama", precision=DTYPE)
    adapt(policy, config.Lora(rank=2, alpha=8.0, targets=[]), 5, BASE)
    state = LoopState(engine_of(policy, name))
    return train_sft(state, EXAMPLES, EXAMPLES[:3], PASSES, batching()), state


def reward(name: str) -> tuple[Rows, LoopState]:
    state = LoopState(engine_of(make_classifier("gpt2", precision=DTYPE), name))
    ranked = [RankedExamples(group, ranking) for group, ranking in zip(groups(), [[0, 1, 2], [1, 0, 0]] * 4, strict=True)]
    return train_reward(state, ranked, ranked[:2], PASSES, batching(), 0.1), state


def dpo(name: str) -> tuple[Rows, LoopState]:
    paired = [PairedExamples(group, pairs) for group, pairs in zip(groups(), [[(0, 1), (2, 1)], [(1, 2)]] * 4, strict=True)]
    known = with_reference(make_policy("gpt2", 1, DTYPE), paired, batching())
    state = LoopState(engine_of(make_policy("gpt2", precision=DTYPE), name))
    return train_dpo(state, known, known[:2], PASSES, batching(), None, dpo_settings(beta=0.3)), state


def ppo(name: str, **critic: Any) -> tuple[Rows, PPOState]:
    stop = {"steps": 3, "kl_budget": 0.0, "plateau_evaluations": 0}
    settings = ppo_settings(ptx_coef=0.1, stop=stop, **critic)
    policy, reward_model = make_policy("llama", precision=DTYPE), make_classifier("llama", 1, DTYPE)
    environment = environment_for(policy, reward_model, batching=batching())
    engines = {"engine": settings_of(name), "optimizer": ADAMW}
    state = make_state(all_settings(settings).model_copy(update=engines), policy, reward_model)
    assert policy_of(state) is policy
    return train_ppo(state, environment, settings), state


LOOPS: dict[str, Callable[[str], tuple[Rows, LoopState | PPOState]]] = {
    "sft": sft,
    "adapters": adapters,
    "reward": reward,
    "dpo": dpo,
    "ppo": ppo,
    "shared": lambda name: ppo(name, **SHARED),
}


def found_of(rows: list[dict[str, float]], state: LoopState | PPOState) -> dict[str, Any]:
    engine = state.policy if isinstance(state, PPOState) else state.engine
    masters = engine.state_dict()["masters"]
    with engine.whole():
        kept = {name: weight.tolist() for name, weight in masters.items()}
        return {"rows": rows, "masters": kept, "weights": weights(engine.model).tolist()}


def stop_and_save(name: str, loop: str, file: Path) -> list[dict[str, float]]:
    rows, state = LOOPS[loop](name)
    told = list(islice(rows, STOP_AFTER))
    saved = state.state_dict()
    if ranks.rank() == 0:
        torch.save(saved, file)
    ranks.everybodys({ranks.rank(): None})  # none reads before it is written
    return told


def go_on(name: str, loop: str, told: list[dict[str, float]], file: Path) -> dict[str, Any]:
    rows, state = LOOPS[loop](name)
    state.load_state_dict(torch.load(file, weights_only=True, mmap=True))
    return found_of([*told, *rows], state)


def main(file: Path, name: str, dtype: str, other: Path | None) -> None:
    """The loops from begin to end, and stopped and gone on with; and gone on with from where another run of this has
    stopped, whose file `other` is."""
    global DTYPE
    DTYPE = dtype
    torch.set_num_threads(1)
    zero.SMALL = 0  # or nothing here would be in parts
    ranks.join(torch.device("cpu"))
    found: dict[str, Any] = {}
    theirs = json.loads(other.read_text(encoding="utf-8")) if other else {}
    for loop, begin in LOOPS.items():
        rows, state = begin(name)
        found[loop] = found_of(list(rows), state)
        told = stop_and_save(name, loop, file.with_name(f"{loop}.pt"))
        found[f"{loop} resumed"] = go_on(name, loop, told, file.with_name(f"{loop}.pt"))
        if other and loop in theirs:
            told = theirs[loop]["rows"][:STOP_AFTER]
            found[f"{loop} taken over"] = go_on(name, loop, told, other.with_name(f"{loop}.pt"))
    if ranks.rank() == 0:
        file.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    os.environ["DS_ACCELERATOR"] = "cpu"
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]) if len(sys.argv) > 4 else None)
