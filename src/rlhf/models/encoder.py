"""Reward models that read both ways, as BERT does: stock sequence classifiers of a pair of texts, prompt and response.

They are asked for scores and never trained here: stock transformers computes them, from an attention mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from rlhf.errors import UserError
from rlhf.models.batching import Batching
from rlhf.models.place import reading
from rlhf.models.policy import refuse_missing
from rlhf.models.tokens import encode_conversation, read_tokenizer
from rlhf.records import Message, Messages
from rlhf.runtime import ranks

BETWEEN = "\n\n"  # two turns, where no template says what is
PAIR = ((Message("user", "?"),), "!")


def load_encoder(path: str | Path, device: torch.device) -> PreTrainedModel:
    """A sequence classifier with one label, in float32 whatever the engine computes in: the last bits decide pairs."""
    with reading(path):
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            str(path), dtype=torch.float32, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    model, found = loaded
    refuse_missing(path, found["missing_keys"])
    checked: PreTrainedModel = model.to(device).eval()
    return checked


def load_encoders_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer as it is: it needs no end token, for nothing is sampled.

    Raises:
        UserError: it has no pad token, or makes nothing of a pair.
    """
    tokenizer = read_tokenizer(path)
    if tokenizer.pad_token_id is None:
        raise UserError(f"{path}: the tokenizer has no pad token (pad_token); set one in its tokenizer_config.json")
    tokenizer.truncation_side = "left"
    with reading(path, what="tokenizer"):
        encode_pair(tokenizer, *PAIR, most=math.inf)
    return tokenizer


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, prompt: Messages, response: str, most: float
) -> tuple[BatchEncoding, bool]:
    """What the tokenizer makes of the two texts, or of what its chat template says of the conversation; whether it had to be
    cut to so many tokens, the longer text on its left."""
    if tokenizer.chat_template is not None:
        ids = encode_conversation(tokenizer, (*prompt, Message("assistant", response)), add_generation_prompt=False)
        kept = ids if len(ids) <= most else ids[-int(most) :]
        return BatchEncoding({"input_ids": kept, "attention_mask": [1] * len(kept)}), len(kept) < len(ids)
    texts = (BETWEEN.join(turn.content for turn in prompt), response)
    whole = tokenizer(*texts, split_special_tokens=True)
    if len(whole["input_ids"]) <= most:
        return whole, False
    return tokenizer(*texts, split_special_tokens=True, truncation="longest_first", max_length=int(most)), True


def most_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """How many tokens the classifier reads; inf where neither it nor its tokenizer says."""
    made_for = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
    tables = [part for name, part in model.named_modules() if name.endswith("position_embeddings")]
    # RoBERTa and those after it count their positions from behind the pad token's id.
    unused = max((t.padding_idx + 1 for t in tables if isinstance(t, nn.Embedding) and t.padding_idx is not None), default=0)
    limits = [made_for - unused, tokenizer.model_max_length]
    return min((float(limit) for limit in limits if limit > 0), default=math.inf)


def encoder_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[BatchEncoding], batching: Batching
) -> list[float]:
    """The scores in order; several processes read a share each.

    Raises:
        UserError: one is not finite.
    """

    def read(group: list[int]) -> list[float]:
        batch = tokenizer.pad([dict(rows[i]) for i in group], return_tensors="pt").to(model.device)
        with torch.no_grad():
            scores: list[float] = model(**batch).logits[:, 0].float().tolist()
        return scores

    groups = batching.cut([len(row["input_ids"]) for row in rows])
    found = {
        i: score
        for group, scores in zip(groups, ranks.together(groups, read), strict=True)
        for i, score in zip(group, scores, strict=True)
    }
    if not all(map(math.isfinite, found.values())):
        raise UserError("a model's scores are not finite: its weights are broken")
    return [found[i] for i in range(len(rows))]
