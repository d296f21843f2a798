"""From verdicts on pairs to rankings: which pairs are asked, what an answer says, and the order that comes of it.

A verdict says which of two texts is better, "A" (the one shown first) or "B", or "tie". Every pair is asked in both orders,
and counts for a text only where both name it: a judge that favours a place (Zheng et al. 2023, section 3.3) ties.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlhf.labeling.order import hashed_uniform, ranks_by
from rlhf.records import Messages, Response, Responses, messages_to_row

Verdict = Literal["A", "B", "tie", "unreadable", "refused"]
OTHER_WAY_ROUND = {"A": "B", "B": "A", "tie": "tie"}  # what the same judgement is called where the two have changed places
LETTERS: dict[str, Verdict] = {"A": "A", "B": "B"}
BEFORE = {"my", "the", "final", "overall", "verdict", "answer", "decision", "winner", "better", "response", "is"}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two different responses, by their places, to the prompt in the row `row`."""

    row: int
    first: int
    second: int

    def other_way_round(self) -> Pair:
        return Pair(self.row, self.second, self.first)


@dataclass(frozen=True, slots=True)
class Said:
    """One question's verdict, and the words it came in (None where a model was not asked for any)."""

    verdict: Verdict
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """One question with its verdict: what an auditor reads."""

    prompt: Messages
    response_a: Response
    response_b: Response
    said: Said

    def to_row(self) -> dict[str, Any]:
        return {
            "prompt": messages_to_row(self.prompt),
            "response_a": self.response_a.text,
            "response_b": self.response_b.text,
            "verdict": self.said.verdict,
            "answer": self.said.answer,
        }


def pairs_of(responses: Sequence[Responses], pairs_per_prompt: int, seed: int) -> list[Pair]:
    """The pairs of distinct texts to ask about: all, or so many of each prompt, spread evenly over its texts.

    The texts stand in a ring, in an order drawn by (seed, prompt, text); neighbours are compared first, then those with one
    between them, and so on. So one pair less than there are texts is enough to connect them all.
    """
    return [
        Pair(row, *places)
        for row, drawn in enumerate(responses)
        for places in itertools.islice(_ring(drawn, seed), pairs_per_prompt or None)
    ]


def _ring(drawn: Responses, seed: int) -> list[tuple[int, int]]:
    first_place = {response.text: place for place, response in reversed(list(enumerate(drawn.responses)))}
    ring = sorted(first_place.values(), key=lambda place: hashed_uniform(seed, drawn.prompt, drawn.responses[place].text))
    count = len(ring)
    return [
        (ring[start], ring[(start + distance) % count])
        for distance in range(1, count // 2 + 1)
        for start in range(count if 2 * distance < count else count // 2)
    ]


def read_verdict(answer: str) -> Verdict:
    """What the last line says that says anything: A, B or tie, whatever signs stand around it, and with no words before it
    but some like "the verdict is"; anything else is unreadable. A small letter counts only where it stands alone."""
    lines = [words for line in answer.splitlines() if (words := _words(line))]
    if not lines:
        return "unreadable"
    *before, last = lines[-1]
    if not {word.lower() for word in before} <= BEFORE:
        return "unreadable"
    if last.lower() == "tie":
        return "tie"
    return LETTERS.get(last if before else last.upper(), "unreadable")


def _words(line: str) -> list[str]:
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", line))


def winner_of(forward: Verdict, backward: Verdict) -> int:
    """1 if both orders name the pair's first text, -1 if both name its second one, else 0.

    forward: the verdict where the first text was shown first; backward: where it was shown second.
    """
    if OTHER_WAY_ROUND.get(backward) != forward:
        return 0
    return {"A": 1, "B": -1}.get(forward, 0)


def ranks_of(responses: Sequence[Responses], pairs: Sequence[Pair], winners: Sequence[int]) -> list[tuple[int, ...]]:
    """Of every prompt's responses: by wins less losses (Copeland 1951); equal ones tie, identical texts too.

    winners: `winner_of` each pair.
    """
    scores: list[Counter[str]] = [Counter() for _ in responses]
    for pair, winner in zip(pairs, winners, strict=True):
        texts = [response.text for response in responses[pair.row].responses]
        scores[pair.row][texts[pair.first]] += winner
        scores[pair.row][texts[pair.second]] -= winner
    return [ranks_by([score[r.text] for r in drawn.responses]) for drawn, score in zip(responses, scores, strict=True)]


def judge_figures(said: Sequence[tuple[Said, Said]]) -> dict[str, float]:
    """Counts of what was said of pairs, each in both orders.

    `position_inconsistent` counts pairs of which both verdicts could be read, and which agree about neither text nor tie.
    `said_first` is the share of the verdicts for a text that are for the one shown first: .5 without position bias.
    """
    verdicts = Counter(one.verdict for both in said for one in both)
    read = [(one.verdict, two.verdict) for one, two in said if {one.verdict, two.verdict} <= OTHER_WAY_ROUND.keys()]
    inconsistent = sum(OTHER_WAY_ROUND[backward] != forward for forward, backward in read)
    named = verdicts["A"] + verdicts["B"]
    return {
        "pairs": len(said),
        "questions": 2 * len(said),
        "ties_said": verdicts["tie"],
        "parse_failures": verdicts["unreadable"],
        "refused": verdicts["refused"],
        "position_inconsistent": inconsistent,
        "position_inconsistent_share": inconsistent / len(read) if read else 0.0,
    } | ({"said_first": verdicts["A"] / named} if named else {})
