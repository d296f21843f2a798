"""SFT, reward model and DPO by their loops, each on the same rows of unequal length, to hold one run against another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from rlhf.models.batching import Batching
from rlhf.models.tokens import Example
from rlhf.training.dpo import PairedExamples, train_dpo, with_reference
from rlhf.training.loop import LoopState, Passes
from rlhf.training.reward import RankedExamples, train_reward
from rlhf.training.sft import train_sft
from tests.models.tiny_models import make_classifier, make_policy, random_examples
from tests.training.table import dpo_settings, engine_for, learned, steps_of

ROWS = 8
EXAMPLES = random_examples(ROWS, seed=4)


class Learned(NamedTuple):
    """The rows of figures, the weights at the end, the micro-batches of each step."""

    rows: list[dict[str, float]]
    weights: Tensor
    steps: list[list[Any]]


Learner = Callable[..., Learned]  # architecture, precision, batching, passes, and what the engine is told


def groups() -> list[list[Example]]:
    """Eight prompts with three responses each."""
    drawn = [random_examples(3, seed=seed) for seed in range(ROWS)]
    return [[Example(group[0].prompt_ids, e.response_ids) for e in group] for group in drawn]


def by_sft(architecture: str, precision: str, batching: Batching, passes: Passes, **engine: float) -> Learned:
    policy = make_policy(architecture, precision=precision)
    state = LoopState(engine_for(policy, **engine))
    steps = steps_of(state.engine)
    rows = list(train_sft(state, EXAMPLES, EXAMPLES[:3], passes, batching))
    return Learned(rows, learned(state.engine), steps)


def by_reward(architecture: str, precision: str, batching: Batching, passes: Passes, **engine: float) -> Learned:
    model = make_classifier(architecture, precision=precision)
    state = LoopState(engine_for(model, **engine))
    steps = steps_of(state.engine)
    ranked = [RankedExamples(group, ranks) for group, ranks in zip(groups(), [[0, 1, 2], [1, 0, 0]] * 4, strict=True)]
    rows = list(train_reward(state, ranked, ranked[:2], passes, batching, 0.1))
    return Learned(rows, learned(state.engine), steps)


def by_dpo(architecture: str, precision: str, batching: Batching, passes: Passes, **engine: float) -> Learned:
    policy, reference = (make_policy(architecture, seed, precision) for seed in (0, 1))
    state = LoopState(engine_for(policy, **engine))
    steps = steps_of(state.engine)
    paired = [PairedExamples(group, pairs) for group, pairs in zip(groups(), [[(0, 1), (2, 1)], [(1, 2)]] * 4, strict=True)]
    asked = with_reference(reference, paired, Batching(batching.pad_id, 10_000))
    rows = list(train_dpo(state, asked, asked[:2], passes, batching, None, dpo_settings(beta=0.3)))
    return Learned(rows, learned(state.engine), steps)
