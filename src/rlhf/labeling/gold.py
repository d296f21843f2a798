"""A simulated person: orders responses by a gold rater, with the noise of Bradley-Terry (SPEC eq. 1).

The order is a draw from Plackett and Luce's model (Luce 1959, Plackett 1975): the best is chosen with probability
proportional to exp(gold / temperature), then the next among those left, and so on. Each of its pairs by itself is then
exactly a Bradley-Terry comparison. It is drawn as Yellott (1977) showed: each response's strength plus Gumbel noise, sorted.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlhf.data.gold import GoldRater
from rlhf.data.sentiment import WORD, SentimentRater
from rlhf.data.world import GOLD_DECIMALS
from rlhf.errors import UserError
from rlhf.labeling.order import noisy_ranks
from rlhf.records import Messages, Ranking, Responses

LABELER = "gold"


def label_gold(responses: Sequence[Responses], gold: GoldRater, temperature: float, seed: int) -> list[Ranking]:
    """A ranking a prompt; identical texts tie. What a text is worth to the person on the day is a function of
    (seed, prompt, text) alone: neither the order of the rows nor that of the responses changes a label.

    Args:
        temperature: gold units; the larger, the noisier the labels.
    """
    settings = {"temperature": temperature, "seed": seed}
    return [
        Ranking(
            prompt=drawn.prompt,
            responses=drawn.responses,
            ranks=_order(drawn.prompt, [response.text for response in drawn.responses], gold, temperature, seed),
            split=drawn.split,
            labeler=LABELER,
            settings=settings,
        )
        for drawn in responses
    ]


def refuse_the_unknown(responses: Sequence[Responses], gold: GoldRater) -> dict[str, int]:
    """How many responses have no word that a learned rater knows, which all have the same gold score; {} of other raters.

    Raises:
        UserError: it tells no response from another one to the same prompt, so that its labels would be noise alone.
    """
    if not isinstance(gold, SentimentRater):
        return {}
    texts = [response.text for drawn in responses for response in drawn.responses]
    strange = sum(not any(word in gold.words for word in WORD.findall(text.lower())) for text in texts)
    several = [found for drawn in responses if len(found := {r.text for r in drawn.responses}) > 1]
    if several and not any(len({round(gold.rate("", text).gold, GOLD_DECIMALS) for text in found}) > 1 for found in several):
        raise UserError(
            f"label: the rater that data.rater taught tells no response from another one to the same prompt ({strange} of "
            f"{len(texts)} have no word that it knows), and its labels would be noise: name reviews in the language of the "
            "data, and on such things as they speak of"
        )
    return {"without_known_word": strange}


def _order(prompt: Messages, texts: Sequence[str], gold: GoldRater, temperature: float, seed: int) -> tuple[int, ...]:
    worth = {text: gold.rate(prompt[-1].content, text).gold for text in texts}
    return noisy_ranks(prompt, texts, worth, temperature, seed)
