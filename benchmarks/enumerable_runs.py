"""PPO, DPO and their relatives, each with what it solves, run on the space of enumerable.py."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.enumerable import (
    BATCHING,
    BETA,
    EXAMPLES,
    MISSING_END,
    PROMPT,
    Space,
    best,
    best_by_token,
    best_of_ipo,
    decoding,
    labelled_pairs,
)
from torch import Tensor
from transformers import PreTrainedModel

from rlhf.config import Config
from rlhf.runtime.engine import make_engine
from rlhf.runtime.settings import compose, validate, values_of
from rlhf.training.dpo import PairedExamples, train_dpo, with_reference
from rlhf.training.loop import LoopState, Passes
from rlhf.training.ppo import train_ppo
from rlhf.training.ppo_setup import make_state
from rlhf.training.ppo_state import Environment, policy_of
from rlhf.training.watch import Watch

ROOT = Path(__file__).resolve().parents[1]
TIMES = 10  # each pair of responses is labelled
SETTINGS: dict[str, Any] = {
    "optimizer.schedule": "cosine",
    "optimizer.final_lr_share": 0.0,
    "ppo.stop.steps": 80,
    "ppo.responses_per_step": 512,
    "ppo.responses_per_minibatch": 256,
    "ppo.kl_ctl": BETA,
    "ppo.gamma": 1.0,
    "ppo.lam": 1.0,
    "ppo.value_clip": 0.0,
    "ppo.whiten_advantages": False,
    "ppo.critic_warmup_steps": 0,
    "ppo.missing_end_score": MISSING_END,
    "ppo.lr": 1e-2,
    "ppo.critic_lr": 1e-2,
    "ppo.warmup_share": 0.0,
    "ppo.eval_every_steps": 80,
    "ppo.keep_every": 0,
    "dpo.epochs": 300,
    "dpo.prompts_per_step": 1,
    "dpo.beta": BETA,
    "dpo.lr": 1e-2,
    "dpo.warmup_share": 0.0,
}


@dataclass(frozen=True)
class Method:
    """A line of the picture.

    solves: where it should end, (57,) probabilities; None where that is not known in closed form.
    """

    name: str
    changes: dict[str, Any]
    colour: str
    choices: tuple[str, ...] = ()
    dashes: str = "-"
    solves: Callable[[Space], Tensor] | None = best
    ppo: bool = True
    settings: Config = field(init=False)

    def __post_init__(self) -> None:
        values = SETTINGS | self.changes
        overrides = [*self.choices, *(f"{name}={value}" for name, value in values.items())]
        object.__setattr__(self, "settings", validate(values_of(compose(ROOT, overrides))))


SHARED, EIGHT = {"ppo.w_c": 0.5}, {"ppo.responses_per_prompt": 8}
HALF = {"ppo.responses_per_step": 256, "ppo.responses_per_minibatch": 128}  # enough to see that it ends elsewhere
METHODS = {  # the colours of Okabe and Ito (2008), which colour-blind people can tell apart
    "ppo": Method("PPO, a critic of its own", {}, "#0072B2"),
    "shared": Method("PPO, critic on the policy's trunk", SHARED, "#56B4E9", ("ppo=shared",)),
    # at .01 it gives up likely responses that it should keep, and then hardly ever samples them
    "rloo": Method("RLOO", EIGHT | {"ppo.lr": 3e-3}, "#009E73", ("ppo=rloo",)),
    "gamma": Method(
        "PPO, γ = 0.5",
        HALF | SHARED | {"ppo.gamma": 0.5},
        "#CC79A7",
        ("ppo=shared",),
        "--",
        lambda space: best_by_token(space, 0.5),
    ),
    "price": Method(
        "RLOO, KL priced 20 % too high",
        HALF | EIGHT | {"ppo.kl_ctl": 1.2 * BETA},
        "#009E73",
        ("ppo=rloo",),
        "--",
        lambda space: best(space, 1.2 * BETA),
    ),
    "loss": Method(
        "PPO, KL as a loss",
        HALF | SHARED | {"ppo.kl_in": "loss"},
        "#E69F00",
        ("ppo=shared",),
        "--",
        lambda space: best_by_token(space, kl_in="loss"),
    ),
    "grpo": Method("GRPO", HALF | EIGHT, "#D55E00", ("ppo=grpo",), "--", None),
    "dpo": Method("DPO", {}, "#0072B2", ppo=False),
    "ipo": Method(
        "IPO loss, the same β", {"dpo.loss": "ipo", "dpo.epochs": 100}, "#D55E00", (), "--", best_of_ipo, ppo=False
    ),
}


def run(method: Method, space: Space, seed: int) -> Iterator[tuple[int, PreTrainedModel]]:
    """Before the first step and after each: how many responses were sampled, or pairs compared, so far, and the policy."""
    return _run_ppo(method.settings, space, seed) if method.ppo else _run_dpo(method.settings, space)


def _run_ppo(settings: Config, space: Space, seed: int) -> Iterator[tuple[int, PreTrainedModel]]:
    environment = Environment(
        reference=space.reference,
        reward_model=space.reward_model,
        prompts=[PROMPT],
        truncated_prompts=0,
        demonstrations=[],
        decoding=decoding(),
        batching=BATCHING,
        watch=Watch(space.reference, [PROMPT], 0, decoding(), BATCHING, temperature=1.0, seed=seed),
        seed=seed,
    )
    state = make_state(settings, copy.deepcopy(space.reference).requires_grad_(True), space.reward_model)
    for row in train_ppo(state, environment, settings.ppo):
        yield int(row["step"]) * settings.ppo.responses_per_step, policy_of(state)


def _run_dpo(settings: Config, space: Space) -> Iterator[tuple[int, PreTrainedModel]]:
    """Every step learns from all pairs."""
    policy, dpo = copy.deepcopy(space.reference).requires_grad_(True), settings.dpo
    pairs = labelled_pairs(space.rewards, TIMES)
    rows = with_reference(space.reference, [PairedExamples(EXAMPLES, pairs)], BATCHING)
    passes = Passes(dpo.epochs, dpo.prompts_per_step, dpo.eval_every_steps, seed=0)
    engine = make_engine(policy, dpo.lr, dpo.warmup_share, passes.steps(1), settings.optimizer, settings.engine)
    for row in train_dpo(LoopState(engine), rows, [], passes, BATCHING, None, dpo):
        yield int(row["step"]) * len(pairs), policy
