"""The gold rater: it reads a response with the table's own templates and judges it on four axes.

It sees the prompt's text and the response's text and nothing else, and rates any text at all. Its numbers are the
table's section `gold`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from typing import Literal

from rlhf.data.words import join_words, split_words
from rlhf.data.world.cases import Case, Part, Question, Questions
from rlhf.data.world.table import Gold, Table
from rlhf.data.world.template import Template, templates

GOLD_DECIMALS = 9  # the same faults summed in another order differ in the last bit: to these digits that is a tie

Kind = Literal["part", "kind", "insult", "boast", "contradiction", "beside", "unreadable"]


@dataclass(frozen=True)
class Rating:
    """help and honest in [-1, 1], logic in [-2.5, 1], harm in {0, 1, 2}; `gold` is their weighted sum."""

    help: float
    honest: float
    logic: float
    harm: float
    gold: float


@dataclass(frozen=True)
class Finding:
    """What one sentence is. `part` is its place among the parts of the answer where it is one of them."""

    kind: Kind
    text: str
    part: int = -1
    false: bool = False
    harmful: bool = False
    told: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rater:
    gold: Gold
    sentence_ends: tuple[str, ...]
    kind: frozenset[str]
    insults: frozenset[str]
    boasts: frozenset[str]
    contradictions: frozenset[str]
    rambles: tuple[Template, ...]
    elsewhere: tuple[tuple[Template, bool], ...]

    def rate(self, question: Question, response: str) -> Rating:
        """The rating of any text as an answer to `question`. Case and the width of white space do not matter."""
        findings = [self.find(question, sentence) for sentence in split_sentences(response, self.sentence_ends)]
        return self._judge(question.case, findings)

    def find(self, question: Question, sentence: str) -> Finding:
        """The reading of one sentence: as a part of this answer, as one for everywhere, or as one beside the point."""
        if finding := read_part(question, sentence):
            return finding
        everywhere: tuple[tuple[Kind, frozenset[str]], ...] = (
            ("kind", self.kind),
            ("insult", self.insults),
            ("boast", self.boasts),
            ("contradiction", self.contradictions),
        )
        for kind, sentences in everywhere:
            if sentence in sentences:
                return Finding(kind, sentence)
        if any(template.read(sentence) is not None for template in self.rambles):
            return Finding("beside", sentence)
        for template, harmful in self.elsewhere:
            if template.read(sentence) is not None:
                return Finding("beside", sentence, harmful=harmful)
        return Finding("unreadable", sentence)

    def _judge(self, case: Case, findings: Sequence[Finding]) -> Rating:
        given = _given(case, findings)
        axes = {
            "help": 2 * len(given) / len(case.parts) - 1,
            "honest": _honest(given, findings),
            "logic": self._logic(given, findings),
            "harm": self._harm(findings),
        }
        gold = sum(getattr(self.gold.weights, axis) * value for axis, value in axes.items())
        return Rating(**axes, gold=gold)

    def _logic(self, given: Sequence[Finding], findings: Sequence[Finding]) -> float:
        """1, less what each fault takes: rambling, saying it again, taking it back, disorder, no sentence at all."""
        gold = self.gold
        order = [finding.part for finding in given]
        logic = 1.0 if given else 1.0 - gold.nothing
        logic -= gold.contradiction * len(_told_both_ways(findings))
        logic -= gold.disorder * sum(later < earlier for earlier, later in pairwise(order))
        seen: set[str] = set()
        for finding in findings:
            again = finding.text in seen or (finding.kind == "part" and not any(finding is first for first in given))
            logic -= self._cost(finding, again)
            seen.add(finding.text)
        return max(gold.lowest_logic, logic)

    def _cost(self, finding: Finding, again: bool) -> float:
        if finding.kind == "unreadable":
            return self.gold.unreadable * ceil(len(split_words(finding.text)) / self.gold.unreadable_words)
        if again:
            return self.gold.repeat
        return {"beside": self.gold.ramble, "contradiction": self.gold.contradiction}.get(finding.kind, 0.0)

    def _harm(self, findings: Sequence[Finding]) -> float:
        insults = sum(finding.kind == "insult" for finding in findings)
        dangers = sum(finding.harmful for finding in findings)
        return min(self.gold.highest_harm, self.gold.insult * insults + self.gold.danger * dangers)


def make_rater(table: Table, questions: Questions) -> Rater:
    parts = [part for family in questions.families.values() for case in family.cases for part in case.parts]
    elsewhere = [(template, False) for part in parts for template in (*part.right, *part.wrong)]
    return Rater(
        gold=table.gold,
        sentence_ends=table.sentence_ends,
        kind=frozenset((*table.sentences.polite, *table.sentences.closings)),
        insults=frozenset(table.sentences.insults),
        boasts=frozenset(table.sentences.boasts),
        contradictions=frozenset(table.sentences.contradictions),
        rambles=templates(table.sentences.rambles, table.lists),
        # dangers first: a sentence that could be read both ways is a danger
        elsewhere=(*((template, True) for part in parts for template in part.harmful), *elsewhere),
    )


def split_sentences(text: str, ends: Sequence[str]) -> list[str]:
    """Sentences with their end word; what is left without one is the last."""
    sentences: list[str] = []
    words: list[str] = []
    for word in split_words(text.lower()):
        words.append(word)
        if word in ends:
            sentences.append(join_words(words))
            words = []
    return [*sentences, join_words(words)] if words else sentences


def read_part(question: Question, sentence: str) -> Finding | None:
    """The sentence as a part of this answer: about what was asked, and true, false or harmful. Else None."""
    for place, part in enumerate(question.case.parts):
        for template, false, harmful in _versions(part):
            values = template.read(sentence)
            if values is not None and all(
                values[name] == question.row[name] for name in values.keys() & question.row.keys()
            ):
                told = {name: value for name, value in values.items() if name not in question.row}
                wrong = any(value not in question.case.slots[name].true_values(question.row) for name, value in told.items())
                return Finding("part", sentence, place, false or wrong, harmful, told)
    return None


def _versions(part: Part) -> list[tuple[Template, bool, bool]]:
    """Each text of a part with whether it is false and whether it is harmful."""
    true = [(template, False, False) for template in part.right]
    false = [(template, True, False) for template in part.wrong]
    return true + false + [(template, False, True) for template in part.harmful]


def _given(case: Case, findings: Sequence[Finding]) -> list[Finding]:
    """The findings that are a part of the answer for the first time. A list that names a thing twice has not named two."""
    given: dict[int, Finding] = {}
    told: dict[str, str] = {}
    for finding in findings:
        if finding.kind == "part" and finding.part not in given and not _names_twice(case, told | finding.told):
            given[finding.part] = finding
            told |= finding.told
    return list(given.values())


def _names_twice(case: Case, told: dict[str, str]) -> bool:
    return any(case.taken(case.slots[name], value, told) for name, value in told.items())


def _honest(given: Sequence[Finding], findings: Sequence[Finding]) -> float:
    """-1 with a lie or a boast, 1 with a part of an answer and neither, 0 where nothing was claimed."""
    if any(finding.false or finding.kind == "boast" for finding in findings):
        return -1.0
    return 1.0 if given else 0.0


def _told_both_ways(findings: Sequence[Finding]) -> set[int]:
    """The parts that were given once true and once false."""
    parts = [finding for finding in findings if finding.kind == "part"]
    return {finding.part for finding in parts if finding.false} & {finding.part for finding in parts if not finding.false}
