"""What is said when too many rows do not fit the context."""

from __future__ import annotations

from rlhf.errors import UserError


def refuse_dropped(section: str, dropped: int, kept: int, max_dropped_share: float, context: int) -> None:
    """UserError where no row is left, or where more than the configured share had to be dropped."""
    total = dropped + kept
    if not kept:
        raise UserError(
            f"{section}: none of {total} rows fits the context of {context} tokens: look at what came before this stage, or "
            "choose a model with a longer context"
        )
    if dropped > max_dropped_share * total:
        raise UserError(
            f"{section}: {dropped} of {total} rows do not fit the context of {context} tokens, more than "
            f"{section}.max_dropped_share ({max_dropped_share}): shorten the responses, raise that share, or choose a model "
            "with a longer context"
        )
