"""Who knows what a response is worth: the world's rater, or one that has learned from reviews how positive a text is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rlhf.data.sentiment import SentimentRater, read_rater
from rlhf.data.world import World, load_world
from rlhf.errors import UserError

GoldRater = World | SentimentRater
WORLD, RATER = "world.yaml", "rater.json"  # what `prepare` leaves of either


def load_gold(find: Callable[[str, str], Path | None]) -> GoldRater | None:
    """The gold rater that `prepare` has left, or None. find: a stage and a file to the file's path, where it is there."""
    if table := find("prepare", WORLD):
        return load_world(table)
    learned = find("prepare", RATER)
    return read_rater(learned) if learned else None


def require_gold(find: Callable[[str, str], Path | None]) -> GoldRater:
    """UserError where there is none."""
    gold = load_gold(find)
    if gold is None:
        raise UserError(f"artifacts/prepare has no gold rater ({WORLD} or {RATER}): make it with `dvc repro prepare`")
    return gold
