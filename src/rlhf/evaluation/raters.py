"""Whose word stands for the truth about an answer: a gold rater's, a scorer's of the user, or nobody's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlhf.config import Evaluate
from rlhf.data.gold import GoldRater
from rlhf.data.scorer import Scorer, load_scorer
from rlhf.data.sentiment import SentimentRater
from rlhf.data.world import GOLD_DECIMALS, World
from rlhf.errors import UserError
from rlhf.evaluation.statistics import Floats
from rlhf.records import Messages

GOLD_FIGURES = ("gold_score", "help", "honest", "logic", "harm")
SCORER = "scorer"
SENTIMENT = "sentiment rater"


def _nobody_knows(prompts: Sequence[Messages]) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Rater:
    """Who gives gold scores.

    name: as in "judged by the …". rate: of prompts and an answer to each, gold_score and what else of GOLD_FIGURES the rater
    knows, (N,) each. perfect: the gold scores of perfect answers, (N,), or None where nobody knows such answers.
    """

    name: str
    rate: Callable[[Sequence[Messages], Sequence[str]], dict[str, Floats]]
    perfect: Callable[[Sequence[Messages]], Floats | None] = _nobody_knows


def rater_of(settings: Evaluate, gold: GoldRater | None, root: Path) -> Rater | None:
    """The rater that evaluate.judge asks for; None where the reward model judges alone."""
    if settings.judge == "python":
        return by_scorer(load_scorer(root, settings.scorer))
    if settings.judge == "gold" and gold is None:
        raise UserError("evaluate.judge (gold) needs a gold rater, and artifacts/prepare has none")
    if gold is None or settings.judge == "reward_model":
        return None
    return by_world(gold) if isinstance(gold, World) else by_sentiment(gold)


def by_world(world: World) -> Rater:
    """The gold rater, who knows axes and perfect answers too."""

    def rate(prompts: Sequence[Messages], texts: Sequence[str]) -> dict[str, Floats]:
        ratings = [world.rate(messages[-1].content, text) for messages, text in zip(prompts, texts, strict=True)]
        rows = np.array([(r.gold, r.help, r.honest, r.logic, r.harm) for r in ratings], dtype=np.float64)
        return dict(zip(GOLD_FIGURES, rows.T.round(GOLD_DECIMALS), strict=True))

    def perfect(prompts: Sequence[Messages]) -> Floats:
        questions = [messages[-1].content for messages in prompts]
        return np.array([world.rate(asked, world.perfect_answer(asked)).gold for asked in questions], dtype=np.float64)

    return Rater("gold rater", rate, perfect)


def by_sentiment(sentiment: SentimentRater) -> Rater:
    """How positive an answer is: no axes, and no answer that is known to be perfect."""

    def rate(prompts: Sequence[Messages], texts: Sequence[str]) -> dict[str, Floats]:
        scores = [sentiment.rate(asked[-1].content, text).gold for asked, text in zip(prompts, texts, strict=True)]
        return {"gold_score": np.array(scores, dtype=np.float64)}

    return Rater(SENTIMENT, rate)


def by_scorer(scorer: Scorer) -> Rater:
    """A scorer's word, as it is: no axes, and no answer that is known to be perfect."""

    def rate(prompts: Sequence[Messages], texts: Sequence[str]) -> dict[str, Floats]:
        scores = [scorer.score(messages, text) for messages, text in zip(prompts, texts, strict=True)]
        return {"gold_score": np.array(scores, dtype=np.float64)}

    return Rater(f"{SCORER} {Path(scorer.path).name}", rate)
