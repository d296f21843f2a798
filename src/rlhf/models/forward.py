"""One forward pass for all: log-probabilities, values and scores of responses, by any stock transformers model.

Rows are laid out flush left (prompt, response, then padding): causal attention never looks right, so no attention mask
and no position ids are needed, whatever the architecture's positions are. Padding costs time only, and `Batching`
keeps it small by grouping rows of like length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.errors import UserError
from rlhf.models.batching import Batching
from rlhf.models.tokens import Batch, Example, collate
from rlhf.runtime import ranks


def flush_left(batch: Batch) -> tuple[Tensor, Tensor]:
    """input_ids (B, S) with every row's real tokens first, and (B, R) positions: t is read at `positions[:, t]`.

    positions[:, t] is the place whose output predicts response token t: one before the token itself.
    """
    prompt_lengths = batch.prompt_mask.sum(1)
    width = int((prompt_lengths + batch.response_mask.sum(1)).max())
    both = torch.cat([batch.prompt_ids, batch.response_ids], dim=1)
    shift = (batch.prompt_mask.shape[1] - prompt_lengths)[:, None]
    source = (torch.arange(width, device=both.device) + shift).clamp(max=both.shape[1] - 1)
    places = torch.arange(batch.response_ids.shape[1], device=both.device)
    return both.gather(1, source), (prompt_lengths[:, None] - 1 + places).clamp(max=width - 1)


def response_logits(policy: PreTrainedModel, batch: Batch) -> Tensor:
    """(T, V) float32 logits that predict the T real response tokens, row by row, as `batch.response_mask` has them."""
    input_ids, positions = flush_left(batch)
    with _head_at(policy, positions, batch.response_mask):
        output = policy(input_ids=input_ids, use_cache=False)
    return output.logits[0].float()


@contextmanager
def _head_at(policy: PreTrainedModel, positions: Tensor, mask: Tensor) -> Iterator[None]:
    """Within it the policy's head reads real response tokens alone, as one row (1, T, d): it is most of a small model's
    work, and what it says the largest tensor there is."""
    rows, places = mask.nonzero()[:, 0], positions[mask]

    def choose(_head: nn.Module, hidden: tuple[Tensor]) -> tuple[Tensor]:
        return (hidden[0][rows, places][None],)

    handle = policy.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()


def response_logprobs(policy: PreTrainedModel, batch: Batch, temperature: float = 1.0) -> Tensor:
    """(B, R) log-probabilities of the response tokens under softmax(logits / temperature): nats, float32, 0 where masked."""
    return _pick(_log_softmax(response_logits(policy, batch), temperature), batch)


def logprobs_and_entropy(policy: PreTrainedModel, batch: Batch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """`response_logprobs`, and the entropy of each of those distributions: both (B, R), nats, 0 where masked."""
    everything = _log_softmax(response_logits(policy, batch), temperature)
    with torch.no_grad():
        entropy = -(everything.exp() * everything).nan_to_num(0.0).sum(-1)
    return _pick(everything, batch), _in_place(entropy, batch)


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """(T, V); at temperature 1 without a copy of the logits."""
    return torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)


def _pick(everything: Tensor, batch: Batch) -> Tensor:
    """(B, R) those of the response tokens, out of (T, V)."""
    tokens = batch.response_ids[batch.response_mask]
    return _finite(_in_place(everything.gather(-1, tokens[:, None])[:, 0], batch), "log-probabilities")


def _in_place(numbers: Tensor, batch: Batch) -> Tensor:
    """(B, R) from one number a real response token (T,); 0 where masked."""
    return torch.zeros_like(batch.response_mask, dtype=numbers.dtype).masked_scatter(batch.response_mask, numbers)


def _finite(numbers: Tensor, what: str) -> Tensor:
    """The numbers as they are; UserError where one is not finite, before anything is computed from it."""
    if not bool(numbers.isfinite().all()):
        raise UserError(
            f"a model's {what} are not finite: its weights are broken or have diverged. "
            "Lower the learning rate of the stage that trained it"
        )
    return numbers


def token_outputs(classifier: PreTrainedModel, input_ids: Tensor) -> Tensor:
    """(B, S) what the scalar head says after every token, centred (`reward_center`) and scaled (`reward_scale`)."""
    head: Any = classifier.score
    hidden = classifier.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
    raw = head(hidden.to(head.weight.dtype))[..., 0].float()
    return (raw - getattr(classifier.config, "reward_center", 0.0)) / getattr(classifier.config, "reward_scale", 1.0)


def response_values(critic: PreTrainedModel, batch: Batch) -> Tensor:
    """(B, R) V(s_t), reward units, 0 where masked: the head read one position before token t, when t is not yet known."""
    input_ids, positions = flush_left(batch)
    values = token_outputs(critic, input_ids).gather(1, positions)
    return _finite(torch.where(batch.response_mask, values, 0.0), "values")


def response_scores(reward_model: PreTrainedModel, batch: Batch) -> Tensor:
    """(B,) the reward model on whole responses: its head read at the last real token."""
    input_ids, _ = flush_left(batch)
    last = batch.prompt_mask.sum(1) + batch.response_mask.sum(1) - 1
    return _finite(token_outputs(reward_model, input_ids).gather(1, last[:, None])[:, 0], "scores")


def logprobs_and_values(
    policy: PreTrainedModel, value_head: nn.Module, batch: Batch, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and values, each (B, R), of a policy whose trunk the critic shares, in one pass."""
    input_ids, positions = flush_left(batch)
    with _head_at(policy, positions, batch.response_mask):
        output = policy(input_ids=input_ids, use_cache=False, output_hidden_states=True)
    logprobs = _pick(_log_softmax(output.logits[0].float(), temperature), batch)
    rows = torch.arange(len(input_ids), device=input_ids.device)[:, None]
    hidden = output.hidden_states[-1][rows, positions].to(next(value_head.parameters()).dtype)
    values = value_head(hidden)[..., 0].float()
    return logprobs, _finite(torch.where(batch.response_mask, values, 0.0), "values")


@torch.no_grad()
def _in_order(
    read: Callable[[Batch], Tensor], examples: Sequence[Example], batching: Batching, device: torch.device
) -> list[Tensor]:
    """One row of `read`'s output an example, cut to its response's length where it has one a token, in the order given.

    Several processes read a share each.
    """

    def read_group(group: list[int]) -> list[Tensor]:
        output = read(collate([examples[i] for i in group], batching.pad_id).to(device))
        lengths = [len(examples[i].response_ids) for i in group]
        rows = [row[..., :length] if row.dim() else row for row, length in zip(output, lengths, strict=True)]
        return rows if ranks.count() == 1 else [row.cpu() for row in rows]

    groups = batching.cut([len(e) for e in examples])
    found = {
        i: row
        for group, rows in zip(groups, ranks.together(groups, read_group), strict=True)
        for i, row in zip(group, rows, strict=True)
    }
    return [found[i].to(device) for i in range(len(examples))]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def logprobs_of(
    policy: PreTrainedModel, examples: Sequence[Example], batching: Batching, temperature: float = 1.0
) -> list[Tensor]:
    """`response_logprobs` of any number of examples: (r,) each, in order, without gradients."""
    return _in_order(
        lambda batch: response_logprobs(policy, batch, temperature),
        examples,
        batching,
        _device(policy),
    )


def summed_logprobs_of(
    policy: PreTrainedModel, examples: Sequence[Example], batching: Batching, temperature: float = 1.0
) -> Tensor:
    """(N,) log-probabilities of whole responses, nats, summed in float64."""
    rows = logprobs_of(policy, examples, batching, temperature)
    return torch.stack([row.double().sum() for row in rows]) if rows else torch.empty(0, dtype=torch.float64)


def logprobs_and_entropy_of(
    policy: PreTrainedModel, examples: Sequence[Example], batching: Batching, temperature: float
) -> tuple[list[Tensor], list[Tensor]]:
    """`logprobs_and_entropy` of any number of examples: two lists of (r,), in order, without gradients."""

    def read(batch: Batch) -> Tensor:
        return torch.stack(logprobs_and_entropy(policy, batch, temperature), dim=1)

    rows = _in_order(read, examples, batching, _device(policy))
    return [row[0] for row in rows], [row[1] for row in rows]


def shared_values_of(
    policy: PreTrainedModel, value_head: nn.Module, examples: Sequence[Example], batching: Batching
) -> list[Tensor]:
    """(r,) values of each example from a head on the policy's trunk, in order, without gradients."""

    def read(batch: Batch) -> Tensor:
        return logprobs_and_values(policy, value_head, batch, temperature=1.0)[1]

    return _in_order(read, examples, batching, _device(policy))


def values_of(critic: PreTrainedModel, examples: Sequence[Example], batching: Batching) -> list[Tensor]:
    """`response_values` of any number of examples: (r,) each, in order, without gradients."""
    return _in_order(partial(response_values, critic), examples, batching, _device(critic))


def scores_of(reward_model: PreTrainedModel, examples: Sequence[Example], batching: Batching) -> Tensor:
    """`response_scores` of any number of examples: (N,), in order, without gradients."""
    rows = _in_order(partial(response_scores, reward_model), examples, batching, _device(reward_model))
    return torch.stack(rows) if rows else torch.empty(0)
