"""Where every response can be listed, both loops must find the best policy there is (SPEC eq. 15): π* ∝ π_ref exp(r / β).

A vocabulary of 8 and at most 2 tokens: 57 responses to one prompt, 8 of which end. The models are real ones.
"""

from __future__ import annotations

import copy
from itertools import combinations, product
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf.models.forward import Batching, logprobs_of, scores_of
from rlhf.models.generation import Decoding
from rlhf.models.reward import centre_scores
from rlhf.models.tokens import Example
from rlhf.training.dpo import PairedExamples, train_dpo, with_reference
from rlhf.training.loop import LoopState, Passes
from rlhf.training.ppo import train_ppo
from rlhf.training.ppo_setup import make_state
from tests.models.tiny_models import EOS, PAD, make_classifier, make_policy
from tests.training.table import RLOO, all_settings, dpo_settings, engine_for, environment_for, ppo_settings

SIZE, BETA, MISSING_END = 8, 0.5, -1.0
PROMPT = [5, 3]  # of two tokens: after one, its repetition would look the same to rotary positions
WORDS = [token for token in range(SIZE) if token != EOS]
RESPONSES = [[EOS], *([token, EOS] for token in WORDS), *(list(pair) for pair in product(WORDS, repeat=2))]
EXAMPLES = [Example(PROMPT, response) for response in RESPONSES]
BATCHING = Batching(PAD, 10_000)


def log_probabilities(policy: PreTrainedModel) -> Tensor:
    return torch.stack([row.double().sum() for row in logprobs_of(policy, EXAMPLES, BATCHING)])


def distance(policy: PreTrainedModel, optimum: Tensor) -> float:
    """Total variation: half the sum of the absolute differences."""
    return float((log_probabilities(policy).exp() - optimum).abs().sum() / 2)


@pytest.fixture(scope="module")
def reference() -> PreTrainedModel:
    return make_policy("llama", seed=0, vocab_size=SIZE)


@pytest.fixture(scope="module")
def reward_model() -> PreTrainedModel:
    """Scores of mean 0 and deviation 1 over the responses that end."""
    model = make_classifier("llama", seed=3, vocab_size=SIZE)
    centre_scores(model, scores_of(model, EXAMPLES[:SIZE], BATCHING), scale=True)
    return model


@pytest.fixture(scope="module")
def rewards(reward_model: PreTrainedModel) -> Tensor:
    """(57,) the score of a response that ends, the constant of one that does not."""
    ended = torch.tensor([response[-1] == EOS for response in RESPONSES])
    return torch.where(ended, scores_of(reward_model, EXAMPLES, BATCHING), MISSING_END).double()


@pytest.fixture(scope="module")
def optimum(reference: PreTrainedModel, rewards: Tensor) -> Tensor:
    return torch.softmax(log_probabilities(reference) + rewards / BETA, 0)


def test_all_responses_are_listed_and_the_best_policy_is_another(reference: PreTrainedModel, optimum: Tensor) -> None:
    assert float(log_probabilities(reference).exp().sum()) == pytest.approx(1.0, abs=1e-5)
    assert distance(reference, optimum) > 0.3
    assert float(optimum.max()) < 0.7


@pytest.mark.parametrize("method", [{}, RLOO | {"responses_per_prompt": 8}], ids=["ppo", "rloo"])
def test_ppo_finds_it(
    reference: PreTrainedModel, reward_model: PreTrainedModel, optimum: Tensor, method: dict[str, Any]
) -> None:
    steps = 80
    settings = ppo_settings(
        stop={"steps": steps, "kl_budget": 0.0, "plateau_evaluations": 0},
        responses_per_step=512,
        responses_per_minibatch=256,
        kl_ctl=BETA,
        gamma=1.0,
        lam=1.0,
        value_clip=0.0,
        missing_end_score=MISSING_END,
        eval_every_steps=steps,
        lr=1e-2,
        **{"whiten_advantages": False} | method,
    )
    policy = copy.deepcopy(reference)
    environment = environment_for(
        policy, copy.deepcopy(reward_model), BATCHING, Decoding(EOS, PAD, 2), watched=[PROMPT], prompts=[PROMPT]
    )
    state = make_state(all_settings(settings, final_lr_share=0.0), policy, environment.reward_model)
    list(train_ppo(state, environment, settings))
    assert distance(policy, optimum) < 0.02


def test_dpo_finds_it(reference: PreTrainedModel, rewards: Tensor, optimum: Tensor) -> None:
    """Each pair as often in either order as the Bradley-Terry model says, to one in 60."""
    times = 60
    pairs = []
    for i, j in combinations(range(len(EXAMPLES)), 2):
        won = round(times * float(torch.sigmoid(rewards[i] - rewards[j])))
        pairs += [(i, j)] * won + [(j, i)] * (times - won)
    policy = copy.deepcopy(reference)
    rows = with_reference(reference, [PairedExamples(EXAMPLES, pairs)], BATCHING)
    steps = 100
    state = LoopState(engine_for(policy, lr=1e-2, steps=steps, final_lr_share=0.0))
    passes = Passes(epochs=steps, rows_per_step=1, eval_every_steps=steps, seed=0)
    list(train_dpo(state, rows, [], passes, BATCHING, None, dpo_settings(beta=BETA)))
    assert distance(policy, optimum) < 0.02
