"""What is said of rows that do not fit the context."""

from __future__ import annotations

from rlhf.errors import UserError
from rlhf.runtime.run import Run


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


def say_truncated(run: Run, truncated: int, prompts: int, context: int) -> None:
    """A line on the screen about prompts whose beginning no model gets to see, where there are any."""
    if truncated:
        run.say(f"cuts {truncated} of {prompts} prompts on their left, to fit the context of {context} tokens")
