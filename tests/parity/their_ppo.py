"""One update of TRL's own PPOTrainer on tiny models, and every tensor that it computed on the way."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback

from rlhf.models.tokens import Example
from tests.models.tiny_models import EOS, PAD, make_classifier, make_policy, random_examples, words_tokenizer
from tests.parity.descent import QUIET, their_descent
from tests.training.table import ends_often

RESPONSES = 8
LONGEST = 6  # tokens of a response
NEVER = -30.0  # a logit that no draw finds
RATE = 0.02  # of plain gradient descent, over several steps
SETTINGS: dict[str, Any] = QUIET | {
    "temperature": 0.7,
    "num_ppo_epochs": 2,
    "kl_coef": 0.05,
    "vf_coef": 0.5,
    "lam": 0.95,
    "stop_token": "eos",
    "response_length": LONGEST,
    "per_device_train_batch_size": RESPONSES,
    "gradient_accumulation_steps": 1,
    "total_episodes": RESPONSES,
    "num_sample_generations": 0,
}


@dataclass(frozen=True, repr=False)
class Models:
    """The critic is no copy of the reward model: after the end of a response a copy would say the score itself."""

    policy: PreTrainedModel
    reference: PreTrainedModel
    reward_model: PreTrainedModel
    critic: PreTrainedModel


@dataclass(frozen=True, repr=False)
class Update:
    """before: the models that it started from. seen: the trainer's tensors, by its own names. policy, critic: after it."""

    settings: dict[str, Any]
    before: Models
    seen: dict[str, Tensor]
    metrics: dict[str, Any]
    policy: PreTrainedModel
    critic: PreTrainedModel

    @property
    def mask(self) -> Tensor:
        """(B, R), True on real tokens."""
        return ~self.seen["padding_mask"]

    @property
    def examples(self) -> list[Example]:
        """What they sampled, without padding."""
        rows = zip(self.seen["queries"].tolist(), self.seen["postprocessed_responses"].tolist(), strict=True)
        return [Example([i for i in query if i != PAD], [i for i in response if i != PAD]) for query, response in rows]


def make_models(ends: bool) -> Models:
    """A pad token is never drawn: TRL takes masks from ids, and would see the end of the response in it."""
    policy, reference = (ends_often(make_policy("llama", seed)) for seed in (0, 1))
    with torch.no_grad():
        for model in (policy, reference):
            model.get_output_embeddings().bias[PAD] = NEVER
            if not ends:
                model.get_output_embeddings().bias[EOS] = NEVER
    return Models(policy, reference, make_classifier("llama", seed=2), make_classifier("llama", seed=3))


def run_their_update(ppo_trainer: ModuleType, folder: Path, ends: bool, **changes: Any) -> Update:
    settings = SETTINGS | changes
    before = make_models(ends)
    policy, critic = copy.deepcopy(before.policy), copy.deepcopy(before.critic)
    prompts = Dataset.from_list([{"input_ids": e.prompt_ids} for e in random_examples(RESPONSES, seed=1)])
    witness = Witness(ppo_trainer.PPOTrainer.train.__code__)
    trainer = ppo_trainer.PPOTrainer(
        args=ppo_trainer.PPOConfig(output_dir=str(folder), **settings),
        processing_class=words_tokenizer("one two three four five six seven eight nine ten"),
        model=policy,
        ref_model=before.reference,
        reward_model=before.reward_model,
        value_model=critic,
        train_dataset=prompts,
        eval_dataset=prompts,
        optimizers=their_descent([*policy.parameters(), *critic.parameters()], RATE),
        callbacks=[witness],
    )
    trainer.train()
    return Update(settings, before, witness.seen, witness.metrics, policy, critic)


class Witness(TrainerCallback):
    """Copies what the trainer's loop holds at the end of its update: it returns none of it."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self.seen: dict[str, Tensor] = {}
        self.metrics: dict[str, Any] = {}

    def on_step_end(self, *_: Any, **__: Any) -> None:
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code is not self._loop:
            frame = frame.f_back
        assert frame is not None
        held = frame.f_locals
        self.seen = {name: value.detach().clone() for name, value in held.items() if isinstance(value, Tensor)}
        self.metrics = dict(held["metrics"])
