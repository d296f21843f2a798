"""Scores by a reward model of somebody else's: its own tokenizer, its own form; only texts pass between models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rlhf import config
from rlhf.models.batching import Batching
from rlhf.models.encoder import encode_pair, encoder_scores, load_encoder, load_encoders_tokenizer, most_tokens
from rlhf.models.folder import check_reward_model
from rlhf.models.forward import scores_of
from rlhf.models.policy import context_of
from rlhf.models.reward import load_reward_model
from rlhf.models.tokens import (
    Example,
    PreTrainedTokenizerBase,
    encode_conversation,
    encode_response,
    filler_id,
    fit,
    load_tokenizer,
    pad_id,
)
from rlhf.records import Message, Messages, Response


@dataclass(frozen=True, slots=True)
class Graded:
    """Scores of texts in order, and how many conversations were cut on their left to fit the context."""

    scores: list[float]
    truncated: int


def grade(
    path: str | Path,
    device: torch.device,
    engine: config.Engine,
    asked: Sequence[tuple[Messages, Response]],
) -> Graded:
    """The score of each response to its prompt, by the sequence classifier with one label in this folder.

    Raises:
        UserError: it has another number of labels, or cannot be loaded.
    """
    grade_by = _by_causal_model if check_reward_model(Path(path)) else _by_encoder
    return grade_by(path, device, engine, asked)


def _by_encoder(
    path: str | Path, device: torch.device, engine: config.Engine, asked: Sequence[tuple[Messages, Response]]
) -> Graded:
    tokenizer = load_encoders_tokenizer(path)
    model = load_encoder(path, device)
    most = most_tokens(model, tokenizer)
    rows = [encode_pair(tokenizer, prompt, response.text, most) for prompt, response in asked]
    batching = Batching(pad_id(tokenizer), engine.tokens_per_micro_batch)
    scores = encoder_scores(model, tokenizer, [row for row, _ in rows], batching)
    return Graded(scores, sum(truncated for _, truncated in rows))


def _by_causal_model(
    path: str | Path, device: torch.device, engine: config.Engine, asked: Sequence[tuple[Messages, Response]]
) -> Graded:
    tokenizer = load_tokenizer(path)
    model = load_reward_model(path, device, engine)
    context = context_of(model, max_tokens=0)
    # Models made here read prompt and response tokenized apart and nothing after the end token; others what a template says.
    encode = _in_two_parts if hasattr(model.config, "reward_center") else _by_template
    rows = [encode(tokenizer, prompt, response, context) for prompt, response in asked]
    examples = [example for example, _ in rows]
    filler = filler_id(tokenizer, model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    scores = scores_of(model, examples, Batching(filler, engine.tokens_per_micro_batch)).tolist()
    return Graded(scores, sum(truncated for _, truncated in rows))


def _in_two_parts(
    tokenizer: PreTrainedTokenizerBase, prompt: Messages, response: Response, context: int
) -> tuple[Example, bool]:
    ids = encode_response(tokenizer, response.text, response.ended)
    fitted = fit(tokenizer, prompt, [ids[-(context - 1) :]], context)
    assert fitted is not None
    return fitted.examples[0], fitted.truncated or len(ids) >= context


def _by_template(
    tokenizer: PreTrainedTokenizerBase, prompt: Messages, response: Response, context: int
) -> tuple[Example, bool]:
    ids = encode_conversation(tokenizer, (*prompt, Message("assistant", response.text)), add_generation_prompt=False)
    kept = ids[-context:]
    return Example(kept[:-1], kept[-1:]), len(ids) > context
