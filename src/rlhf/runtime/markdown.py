"""The few forms of Markdown that results are written in."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlhf.records import Messages

SPECIAL = re.compile(r"[\\`*_\[\]<&|~]")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Its lines."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def cell(text: str) -> str:
    """A text that stays within its cell of a table, and is shown as it is, whatever of it is Markdown or HTML."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(text.split())) or "*(nothing)*"


def quoted(messages: Messages) -> str:
    """A conversation, a paragraph a turn."""
    return "\n>\n".join(f"> **{message.role}** {cell(message.content)}" for message in messages)
