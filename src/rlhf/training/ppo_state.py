"""Who takes part in PPO: what stands still (`Environment`), what learns (`PPOState`)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf import config
from rlhf.maths.kl import AdaptiveKL, FixedKL
from rlhf.models.batching import Batching
from rlhf.models.generation import Decoding
from rlhf.models.tokens import Example
from rlhf.runtime.engine import Engine
from rlhf.training.loop import Said
from rlhf.training.watch import Watch


class SharedTrunk(nn.Module):
    """A policy and, on its trunk, the head of a critic."""

    def __init__(self, policy: PreTrainedModel) -> None:
        super().__init__()
        self.policy = policy
        self.value_head = nn.Linear(policy.config.get_text_config().hidden_size, 1, bias=False, device=policy.device)
        nn.init.zeros_(self.value_head.weight)


@dataclass(frozen=True)
class Environment:
    """What stands still while PPO runs: two models, the prompts, and the eye that is kept on the policy.

    gold: what the gold rater gives to responses to the prompts at these places; set where it is the reward.
    """

    reference: PreTrainedModel
    reward_model: PreTrainedModel
    prompts: list[list[int]]
    truncated_prompts: int
    demonstrations: list[Example]
    decoding: Decoding
    batching: Batching
    watch: Watch
    seed: int
    gold: Callable[[Sequence[int], Sequence[Example]], list[float]] | None = None


@dataclass(frozen=True)
class Kept:
    """The best policy so far by `ppo.keep_best_by`: the step it had made, what it was worth, and a copy of the weights that
    its engine's model learns."""

    step: int
    worth: float
    weights: dict[str, Tensor]


@dataclass
class PPOState:
    """The whole state of the loop. Rows and random numbers are functions of `step`, so there is none of theirs to keep.

    critic: None where it shares the policy's trunk (then `policy.model` is a SharedTrunk), or where there is none.
    """

    policy: Engine
    critic: Engine | None
    kl: FixedKL | AdaptiveKL
    step: int = 0
    best_score: float = float("-inf")
    evaluations_since_best: int = 0
    kept: Kept | None = None
    stopped_by: str = ""
    said: list[Said] = field(default_factory=list)
    explained: bool = False  # why the KL may be negative

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict() if self.critic else None,
            "kl": self.kl.state_dict(),
            "step": self.step,
            "best_score": self.best_score,
            "evaluations_since_best": self.evaluations_since_best,
            "kept": None if self.kept is None else vars(self.kept),
            "stopped_by": self.stopped_by,
            "said": [asdict(then) for then in self.said],
            "explained": self.explained,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        if self.critic:
            self.critic.load_state_dict(state["critic"])
        self.kl.load_state_dict(state["kl"])
        self.step = state["step"]
        self.best_score = state["best_score"]
        self.evaluations_since_best = state["evaluations_since_best"]
        self.kept = None if state["kept"] is None else Kept(**copy.deepcopy(state["kept"]))  # a file's, which may go
        self.stopped_by = state["stopped_by"]
        self.said = [Said(**then) for then in state["said"]]
        self.explained = state["explained"]


@contextmanager
def whole(state: PPOState) -> Iterator[None]:
    """Within it every process has all the weights of the policy and of the critic, to sample and to score."""
    with state.policy.whole(), state.critic.whole() if state.critic else nullcontext():
        yield


def model_of(engine: Engine) -> PreTrainedModel:
    assert isinstance(engine.model, PreTrainedModel)
    return engine.model


def policy_of(state: PPOState) -> PreTrainedModel:
    model = state.policy.model
    return model.policy if isinstance(model, SharedTrunk) else model_of(state.policy)


def policy_learns(state: PPOState, ppo: config.PPO) -> bool:
    """Whether the policy learns from the rollout of this step, or the critic alone does."""
    return state.step >= ppo.critic_warmup_steps
