"""A space in which every response can be listed, and what is best over it (SPEC eq. 15).

A vocabulary of 8 and at most 2 tokens: 57 responses to one prompt, 8 of which end. The models are real ones.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import combinations, product

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from rlhf.models.batching import Batching
from rlhf.models.forward import scores_of, summed_logprobs_of
from rlhf.models.generation import Decoding
from rlhf.models.precision import compute_in
from rlhf.models.reward import centre_scores
from rlhf.models.tokens import Example

SIZE, PAD, EOS, LONGEST = 8, 0, 2, 2
BETA, MISSING_END = 0.5, -1.0
PROMPT = [5, 3]  # of two tokens: after one, its repetition would look the same to rotary positions
WORDS = [token for token in range(SIZE) if token != EOS]
RESPONSES = [[EOS], *([token, EOS] for token in WORDS), *(list(pair) for pair in product(WORDS, repeat=LONGEST))]
EXAMPLES = [Example(PROMPT, response) for response in RESPONSES]
BATCHING = Batching(PAD, 10_000)
SPECIAL = {"bos_token_id": 1, "pad_token_id": PAD, "eos_token_id": EOS}
ARCHITECTURES: dict[str, PretrainedConfig] = {  # rotary positions and a head of its own; absolute positions and a tied head
    "llama": LlamaConfig(
        vocab_size=SIZE,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.4,
        num_labels=1,
        **SPECIAL,
    ),
    "gpt2": GPT2Config(
        vocab_size=SIZE,
        n_embd=16,
        n_layer=2,
        n_head=4,
        n_positions=128,
        initializer_range=0.4,
        num_labels=1,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **SPECIAL,
    ),
}


@dataclass(frozen=True)
class Space:
    """The models that stand still, the reference's log-probability of each response, (57,), and what each is paid, (57,)."""

    reference: PreTrainedModel
    reward_model: PreTrainedModel
    ref_logps: Tensor
    rewards: Tensor


def make_space(architecture: str = "llama", seed: int = 0, precision: str = "float32") -> Space:
    """Random models that compute in this precision; the reward model's scores have mean 0 and deviation 1 over the responses
    that end."""
    sizes = ARCHITECTURES[architecture]
    torch.manual_seed(seed)
    reference = AutoModelForCausalLM.from_config(copy.deepcopy(sizes)).eval().requires_grad_(False)
    torch.manual_seed(seed + 3)
    reward_model = AutoModelForSequenceClassification.from_config(copy.deepcopy(sizes)).eval().requires_grad_(False)
    for model in (reference, reward_model):
        compute_in(model, precision)
    centre_scores(reward_model, scores_of(reward_model, EXAMPLES[:SIZE], BATCHING), scale=True)
    ended = torch.tensor([response[-1] == EOS for response in RESPONSES])
    rewards = torch.where(ended, scores_of(reward_model, EXAMPLES, BATCHING), MISSING_END).double()
    return Space(reference, reward_model, log_probabilities(reference), rewards)


def best(space: Space, beta: float = BETA) -> Tensor:
    """(57,) the probabilities of π* (SPEC eq. 15)."""
    return torch.softmax(space.ref_logps + space.rewards / beta, 0)


def best_by_token(space: Space, gamma: float = 1.0, kl_in: str = "reward") -> Tensor:
    """(57,) what is best token by token: in every state π ∝ π_ref e^(Q / β), Q what is expected from there on.

    With the KL in the reward Q counts the KL to come, and with γ = 1 this is π*; with the KL as a loss it does not.
    """
    joint, paid = _by_first_token(space.ref_logps), _by_first_token(space.rewards)
    ref_first = joint.logsumexp(1)
    weights = joint - ref_first[:, None] + paid / BETA
    second = weights.softmax(1)
    later = BETA * weights.logsumexp(1) if kl_in == "reward" else (second * paid).sum(1)
    begin = torch.cat([space.ref_logps[:1] + space.rewards[:1] / BETA, ref_first + gamma * later / BETA]).softmax(0)
    both = begin[1:, None] * second
    return torch.cat([begin[:1], both[:, 0], both[:, 1:].flatten()])


def _by_first_token(values: Tensor) -> Tensor:
    """(57,), but for the end alone, as (7, 8): a row a first token, the response that ends after it first."""
    return torch.cat([values[1:SIZE, None], values[SIZE:].view(len(WORDS), len(WORDS))], 1)


def best_of_ipo(space: Space, beta: float = BETA) -> Tensor:
    """(57,) where IPO's loss is least: gaps g nearest to (2p − 1) / (2β), p the chance that the first of the two wins."""
    wins = torch.sigmoid(space.rewards[:, None] - space.rewards)
    return torch.softmax(space.ref_logps + (2 * wins - 1).mean(1) / (2 * beta), 0)


def decoding() -> Decoding:
    return Decoding(EOS, PAD, LONGEST)


def log_probabilities(policy: PreTrainedModel) -> Tensor:
    """(57,) nats."""
    return summed_logprobs_of(policy, EXAMPLES, BATCHING)


def total_variation(policy: PreTrainedModel, optimum: Tensor) -> float:
    """Half the sum of the absolute differences of the probabilities."""
    return float((log_probabilities(policy).exp() - optimum).abs().sum() / 2)


def kl_divergence(policy: PreTrainedModel, optimum: Tensor) -> float:
    """KL(policy ‖ optimum), nats."""
    logps = log_probabilities(policy)
    return float((logps.exp() * (logps - optimum.log())).sum())


def labelled_pairs(rewards: Tensor, times: int) -> list[tuple[int, int]]:
    """Every pair of responses so many times, in either order as often as the Bradley-Terry model says.

    Counts are whole, so what a response gets too little in one pair it is owed in the next: its wins over all pairs are
    right to about one, and they alone decide which scores are likeliest. Rounded one by one, rare wins would be lost.
    """
    pairs = []
    owed = [0.0] * len(rewards)
    for i, j in combinations(range(len(rewards)), 2):
        expected = times * float(torch.sigmoid(rewards[i] - rewards[j]))
        won = min(max(round(expected + (owed[i] - owed[j]) / 2), 0), times)
        owed[i] += expected - won
        owed[j] -= expected - won
        pairs += [(i, j)] * won + [(j, i)] * (times - won)
    return pairs
