"""From rankings to preferences, and the count of what carries one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from rlhf.errors import UserError
from rlhf.records import SPLITS, Preference, Ranking, Responses

Row = TypeVar("Row", Responses, Ranking)


def of_first_prompts(rows: Sequence[Row], prompts: int) -> list[Row]:
    """What there is to label: of the train split only what answers its first `prompts` prompts (0: all of it)."""
    asked = list(dict.fromkeys(row.prompt for row in rows if row.split == "train"))
    kept = set(asked[:prompts] if prompts else asked)
    return [row for row in rows if row.split != "train" or row.prompt in kept]


def preferences_of(ranking: Ranking) -> list[Preference]:
    """Every ordered pair of distinct texts, once, the better one chosen (SPEC section 1)."""
    pairs: dict[tuple[str, str], Preference] = {}
    for better, worse in ranking.pairs():
        chosen, rejected = ranking.responses[better], ranking.responses[worse]
        if chosen.text != rejected.text:
            preference = Preference(
                prompt=ranking.prompt,
                chosen=chosen.text,
                rejected=rejected.text,
                split=ranking.split,
                labeler=ranking.labeler,
                chosen_ended=chosen.ended,
                rejected_ended=rejected.ended,
                chosen_token_ids=chosen.token_ids,
                rejected_token_ids=rejected.token_ids,
                settings=ranking.settings,
                margin=ranking.margin,
            )
            pairs.setdefault((chosen.text, rejected.text), preference)
    return list(pairs.values())


def with_pairs(rankings: Sequence[Ranking], max_dropped_share: float) -> list[Ranking]:
    """The rankings that order at least one pair; the others, whose responses all tie, teach nothing.

    Raises:
        UserError: there are more of those than `label.max_dropped_share` allows, or nothing is left.
    """
    kept = [ranking for ranking in rankings if ranking.pairs()]
    dropped = len(rankings) - len(kept)
    if not rankings:
        raise UserError(
            "there is nothing to label: no responses were sampled (sample.prompts), or, with labeler=dataset, the data "
            "bring no preferences. labeler=judge and labeler=reward_model label without; else `dvc repro sft` is as far as "
            "they go"
        )
    if dropped > max_dropped_share * len(rankings) or not kept:
        raise UserError(
            f"label: the responses of {dropped} of {len(rankings)} prompts all tie ({dropped / len(rankings):.3f}, above "
            f"label.max_dropped_share ({max_dropped_share})) and carry no preference: {_advice(rankings[0].labeler)}, or "
            "raise label.max_dropped_share"
        )
    return kept


def _advice(labeler: str) -> str:
    if labeler == "judge":
        return "read in verdicts.jsonl whether its verdicts follow the order of showing or are none, and change the judge"
    return "raise sample.responses_per_prompt or sample.temperature so that responses differ"


def tied_share(rankings: Sequence[Ranking]) -> float:
    """The share of all pairs of responses to one prompt that are tied."""
    pairs = sum(len(ranking.ranks) * (len(ranking.ranks) - 1) // 2 for ranking in rankings)
    return 1 - sum(len(ranking.pairs()) for ranking in rankings) / pairs if pairs else 0.0


def counts(rankings: Sequence[Ranking], kept: Sequence[Ranking], preferences: Sequence[Preference]) -> dict[str, Any]:
    """How much was labelled, and how much of it prefers something."""
    return {
        "rankings": {split: sum(ranking.split == split for ranking in kept) for split in SPLITS},
        "pairs": {split: sum(preference.split == split for preference in preferences) for split in SPLITS},
        "tied_share": tied_share(rankings),
        "dropped_prompts": len(rankings) - len(kept),
        "dropped_share": (len(rankings) - len(kept)) / len(rankings),
    }
