"""Some of what a policy answers while it learns, kept to be read: figures do not say how a policy reaches them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from rlhf.models.tokens import decode_response
from rlhf.records import Messages
from rlhf.runtime import markdown
from rlhf.training.loop import Said

PAGE = "samples.md"


def write_samples(
    output: Path, told: Sequence[Said], asked: Sequence[Messages], tokenizer: PreTrainedTokenizerBase, step: float
) -> Path | None:
    """Writes the page anew where something was said at this step, and says where it lies."""
    if not (asked and told and told[-1].step == step):
        return None
    (output / PAGE).write_text(samples_page(told, asked, tokenizer), encoding="utf-8")
    return output / PAGE


def samples_page(told: Sequence[Said], asked: Sequence[Messages], tokenizer: PreTrainedTokenizerBase) -> str:
    """The answers to each prompt that was asked, one below the other as the policy learnt, in Markdown."""
    parts = ["# What the policy answers while it learns\n"]
    for i, prompt in enumerate(asked):
        header = ["step", "answer", "tokens", *(name.replace("_", " ") for name in told[0].scores)]
        rows = [
            [
                str(then.step),
                markdown.cell(decode_response(tokenizer, then.answers[i])),
                str(len(then.answers[i])),
                *(f"{values[i]:.2f}" for values in then.scores.values()),
            ]
            for then in told
        ]
        parts.append("\n".join([markdown.quoted(prompt), "", *markdown.table(header, rows), ""]))
    return "\n".join(parts)
