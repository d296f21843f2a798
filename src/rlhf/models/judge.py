"""A language model as judge: how much likelier one verdict is than the other as its whole answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rlhf import config
from rlhf.errors import UserError
from rlhf.models.batching import Batching
from rlhf.models.folder import check_folder
from rlhf.models.forward import summed_logprobs_of
from rlhf.models.policy import PreTrainedModel, context_of, load_policy
from rlhf.models.tokens import Example, PreTrainedTokenizerBase, encode_prompt, encode_response, filler_id, load_tokenizer
from rlhf.records import Message

VERDICTS = ("A", "B")


def check_judge(folder: Path) -> None:
    """UserError unless a judge can be loaded from here."""
    check_folder(folder, max_tokens=0, max_response_tokens=1)
    _verdict_ids(load_tokenizer(folder), folder)


def load_judge(
    path: str | Path, device: torch.device, engine: config.Engine
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its own tokenizer."""
    return load_policy(path, device, engine), load_tokenizer(path)


def log_odds(
    judge: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], tokens_per_micro_batch: int
) -> list[float | None]:
    """log P("A") - log P("B") as the answer to each question, nats; None where a question is longer than the context.

    Raises:
        UserError: to its tokenizer A and B are the same, or nothing it knows.
    """
    verdicts = _verdict_ids(tokenizer, str(judge.config.name_or_path))
    room = context_of(judge, max_tokens=0) - max(len(ids) for ids in verdicts)
    asked = [encode_prompt(tokenizer, (Message("user", question),), room) for question in questions]
    examples = [Example(ids, verdict) for ids, too_long in asked if not too_long for verdict in verdicts]
    filler = filler_id(tokenizer, judge.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    logps = summed_logprobs_of(judge, examples, Batching(filler, tokens_per_micro_batch))
    odds = iter((logps[0::2] - logps[1::2]).tolist())
    return [None if too_long else next(odds) for _, too_long in asked]


def _verdict_ids(tokenizer: PreTrainedTokenizerBase, place: str | Path) -> list[list[int]]:
    found = [encode_response(tokenizer, verdict, ended=False) for verdict in VERDICTS]
    if found[0] == found[1] or any(not ids or tokenizer.unk_token_id in ids for ids in found):
        raise UserError(
            f"{place}: its tokenizer has no tokens for the verdicts {' and '.join(VERDICTS)}, so this model cannot judge"
        )
    return found
