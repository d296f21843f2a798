"""The few forms of Markdown that results are written in."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf.records import Messages


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Its lines."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def cell(text: str) -> str:
    """A text that stays within its cell of a table, and is shown as it is."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;") or "*(nothing)*"


def quoted(messages: Messages) -> str:
    """A conversation, a line a turn."""
    return "\n".join(f"> **{message.role}** {cell(message.content)}" for message in messages)
