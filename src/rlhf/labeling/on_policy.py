"""Labels for what a policy says now, in place of what another one said before it."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf.data.gold import GoldRater
from rlhf.labeling.gold import label_gold
from rlhf.labeling.pairs import preferences_of
from rlhf.labeling.sampling import Sampler, draw
from rlhf.records import Preference, Prompt
from rlhf.seeds import derive_seed


def answer_and_label(
    sampler: Sampler, prompts: Sequence[Prompt], gold: GoldRater, temperature: float, seed: int
) -> list[Preference]:
    """The pairs that the gold rater makes of fresh answers; a prompt whose answers all tie has none.

    temperature: gold units, of the labels (`label_gold`).
    """
    drawn = [responses for some in draw(sampler, prompts, derive_seed(seed, "responses")) for responses in some.responses]
    rankings = label_gold(drawn, gold, temperature, derive_seed(seed, "labels"))
    return [preference for ranking in rankings for preference in preferences_of(ranking)]
