"""The embedded world: prompts, demonstrations and a gold rater from one table of text (docs/world.md)."""

from rlhf.data.world.rate import GOLD_DECIMALS, Rating
from rlhf.data.world.world import World, load_world

__all__ = ["GOLD_DECIMALS", "Rating", "World", "load_world"]
