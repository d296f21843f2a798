"""Scores by a reward model of somebody else's: its own tokenizer, its own chat template; only texts pass between models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError

from rlhf import config
from rlhf.errors import UserError
from rlhf.models.folder import check_reward_model
from rlhf.models.forward import Batching, scores_of
from rlhf.models.policy import context_of
from rlhf.models.reward import load_reward_model
from rlhf.models.tokens import Example, PreTrainedTokenizerBase, encode_response, fit, load_tokenizer, pad_id
from rlhf.records import Messages, Response, messages_to_row


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
        UserError: it has another number of labels, or no scalar head over a causal trunk.
    """
    check_reward_model(Path(path))
    tokenizer = load_tokenizer(path)
    model = load_reward_model(path, device, engine)
    if not hasattr(model, "score"):
        raise UserError(f"{path}: {type(model).__name__} has no head named score: only causal models with one can be read")
    context = context_of(model, max_tokens=0)
    # Models made here read prompt and response tokenized apart and nothing after the end token; others what a template says.
    encode = _in_two_parts if hasattr(model.config, "reward_center") else _by_template
    rows = [encode(tokenizer, prompt, response, context) for prompt, response in asked]
    examples = [example for example, _ in rows]
    scores = scores_of(model, examples, Batching(pad_id(tokenizer), engine.tokens_per_micro_batch)).tolist()
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
    rows = [*messages_to_row(prompt), {"role": "assistant", "content": response.text}]
    try:
        encoded: Any = tokenizer.apply_chat_template(rows, return_dict=True)
    except TemplateError as error:
        roles = ", ".join(row["role"] for row in rows)
        raise UserError(f"the tokenizer's chat template refuses a conversation of the roles {roles}: {error}") from error
    ids = list(encoded["input_ids"])
    kept = ids[-context:]
    return Example(kept[:-1], kept[-1:]), len(ids) > context
