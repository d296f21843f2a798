"""Sampling responses: token by token, from exactly the distribution that `forward.response_logprobs` scores.

Row i draws from uniform numbers of its own, a function of (seed, i) alone: which rows share a batch never changes a
response's random numbers, and the same prompts and seed give every model the same ones. Rows that ended leave the
batch, so time is paid for tokens that exist. No top-k, no top-p: they would sample from another policy than is scored.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.models.tokens import end_id, pad_id
from rlhf.runtime import ranks

BLOCK = 256  # tokens of one block of the vocabulary, in sampling


@dataclass(frozen=True, slots=True)
class Generated:
    """One response: its ids (the end token included where it ended) and whether it ended before the limit."""

    response_ids: list[int]
    ended: bool


@dataclass(frozen=True, slots=True)
class Decoding:
    """Where responses end: at the end token, or at the limit; and how many are written side by side."""

    eos_id: int
    pad_id: int
    max_response_tokens: int
    responses_at_once: int = 512


def decoding_of(tokenizer: PreTrainedTokenizerBase, settings: Config) -> Decoding:
    """Responses end where this tokenizer says, or at the limit of the settings."""
    most, at_once = settings.data.max_response_tokens, settings.engine.responses_at_once
    return Decoding(end_id(tokenizer), pad_id(tokenizer), most, at_once)


@torch.no_grad()
def generate(
    policy: PreTrainedModel,
    prompts: Sequence[list[int]],
    decoding: Decoding,
    temperature: float | None,
    seed: int,
) -> list[Generated]:
    """A response to each prompt, in order: sampled at `temperature`, or the likeliest token each time where it is None.

    Several processes write a share each.
    """
    uniforms = None
    if temperature is not None:
        generator = torch.Generator().manual_seed(seed)
        uniforms = torch.rand((len(prompts), decoding.max_response_tokens), generator=generator, dtype=torch.float64)

    def write(rows: list[int]) -> list[list[int]]:
        draws = None if uniforms is None else uniforms[rows]
        return _decode([prompts[i] for i in rows], policy, decoding, temperature, draws)

    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    at_once = max(1, min(decoding.responses_at_once, math.ceil(len(order) / ranks.count())))
    parts = [order[start : start + at_once] for start in range(0, len(order), at_once)]
    written = {
        i: ids
        for part, found in zip(parts, ranks.together(parts, write), strict=True)
        for i, ids in zip(part, found, strict=True)
    }
    responses = [written[i] for i in range(len(prompts))]
    return [Generated(ids, ended=bool(ids) and ids[-1] == decoding.eos_id) for ids in responses]


def _decode(
    prompts: list[list[int]],
    policy: PreTrainedModel,
    decoding: Decoding,
    temperature: float | None,
    uniforms: Tensor | None,
) -> list[list[int]]:
    """One batch of rows to their ends. Prompts are left-padded: every row writes its next token in the same column."""
    device = next(policy.parameters()).device
    width = max(map(len, prompts))
    input_ids = torch.tensor([[decoding.pad_id] * (width - len(p)) + p for p in prompts], device=device)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    mask = torch.arange(width, device=device) >= (width - lengths)[:, None]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=policy.config)
    responses: list[list[int]] = [[] for _ in prompts]
    alive = torch.arange(len(prompts))
    padded = bool((~mask).any())
    for t in range(decoding.max_response_tokens):
        logits = policy(
            input_ids=input_ids,
            attention_mask=mask if padded else None,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        tokens = _choose(logits.float(), temperature, None if uniforms is None else uniforms[alive, t])
        for row, token in zip(alive.tolist(), tokens.tolist(), strict=True):
            responses[row].append(token)
        going = tokens != decoding.eos_id
        if not going.any():
            break
        if not going.all():
            _keep_rows(cache, going.nonzero()[:, 0])
            alive, tokens, mask, lengths = alive[going.cpu()], tokens[going], mask[going], lengths[going]
        input_ids, positions = tokens[:, None], (lengths + t)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return responses


def check_cache(place: str | Path, policy: PreTrainedModel) -> None:
    """UserError where a model does not write with the cache of keys and values that sampling uses."""
    kind: Any = type(policy)
    if "past_key_values" not in inspect.signature(kind.forward).parameters or not kind._supports_default_dynamic_cache():
        raise UserError(
            f"{place}: models of the architecture {policy.config.model_type} have another cache than transformers' "
            "DynamicCache, or none, and responses could not be sampled: choose a model of another architecture"
        )


def _keep_rows(cache: DynamicCache, rows: Tensor) -> None:
    """Only these rows of a batch stay. A layer of linear attention can only reorder its rows, which may also be fewer."""
    layers: list[Any] = cache.layers
    for layer in layers:
        keep = layer.batch_select_indices if hasattr(layer, "batch_select_indices") else layer.reorder_cache
        keep(rows)


def _choose(logits: Tensor, temperature: float | None, uniforms: Tensor | None) -> Tensor:
    """(B,) tokens: the likeliest, or the inverse of the cumulative distribution at each row's uniform number in [0, 1).

    In two levels: first the block of the vocabulary that the number falls into, then the token in it. Few numbers are summed
    up one after the other, and those on the CPU: running sums of floats have no fixed order on a GPU.
    """
    if temperature is None or uniforms is None:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    blocks = pad(probabilities, (0, -logits.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
    sums = blocks.sum(-1).cpu()
    reach = sums.cumsum(-1)
    block, rest = _find(reach, uniforms.cpu()[:, None] * reach[:, -1:])
    rest = rest - (reach - sums).gather(-1, block)
    rows = torch.arange(len(logits), device=logits.device)
    token, _ = _find(blocks[rows, block[:, 0].to(logits.device)].cpu().cumsum(-1), rest)
    return (block * BLOCK + token)[:, 0].to(logits.device)


def _find(reach: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1) the first place that reaches beyond each draw; and the draw, kept below a total that rounding lifts it to."""
    below = torch.nextafter(reach[:, -1:], torch.zeros_like(draws))
    held = draws.clamp(min=0.0).minimum(below).contiguous()
    return torch.searchsorted(reach, held, right=True), held
