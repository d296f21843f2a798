"""Writing answers as people do: mostly careless, erring on each of the four axes independently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from rlhf.data.words import join_words, split_words
from rlhf.data.world.cases import Case, Part, Question, Slot, Values
from rlhf.data.world.table import Demonstrators, Rates, Table
from rlhf.data.world.template import Template, templates


@dataclass(frozen=True)
class Errors:
    """On which axes an answer errs."""

    help: bool = False
    honest: bool = False
    logic: bool = False
    harm: bool = False


def draw_errors(rates: Rates, demonstrators: Demonstrators, rng: Random) -> Errors:
    """One demonstrator's errors: independent per axis, given whether the demonstrator is careful."""
    if rng.random() < demonstrators.careful_share:
        rate = demonstrators.careful_rate
        rates = Rates(help=rate, honest=rate, logic=rate, harm=rate)
    return careless_errors(rates, rng)


def careless_errors(rates: Rates, rng: Random) -> Errors:
    help, honest, logic, harm = (rng.random() < rate for rate in (rates.help, rates.honest, rates.logic, rates.harm))
    return Errors(help, honest, logic, harm)


@dataclass(frozen=True)
class Writer:
    """Writes answers from the table's templates."""

    table: Table
    rambles: tuple[Template, ...]

    def answer(self, question: Question, errors: Errors, rng: Random) -> str:
        """An answer with exactly these errors: an opening, the parts, a fault of logic, a closing."""
        parts = self._parts(question, errors, rng)
        opening = self._opening(question, errors, rng)
        closing = self._closing(question, errors, rng)
        room = self.table.max_answer_words - _words([*opening, *parts, *closing])
        fault = self._fault(parts, room, rng) if errors.logic else []
        return join_words([*opening, *parts, *fault, *closing])

    def _parts(self, question: Question, errors: Errors, rng: Random) -> list[str]:
        case, lie, harm = question.case, errors.honest and question.family.lies, errors.harm and question.family.harms
        values = told_values(case, question.row, lie, rng)
        told = [_part_template(part, lie, harm, rng).fill(values) for part in case.parts]
        return told[: len(told) // 2] if errors.help else told  # half an answer; every answer has two parts or more

    def _opening(self, question: Question, errors: Errors, rng: Random) -> list[str]:
        if errors.harm and not question.family.harms:
            return [rng.choice(self.table.sentences.insults)]
        return self._maybe(self.table.demonstrators.polite_share, self.table.sentences.polite, rng)

    def _closing(self, question: Question, errors: Errors, rng: Random) -> list[str]:
        if errors.honest and not question.family.lies:
            return [rng.choice(self.table.sentences.boasts)]
        return self._maybe(self.table.demonstrators.closing_share, self.table.sentences.closings, rng)

    def _maybe(self, share: float, sentences: Sequence[str], rng: Random) -> list[str]:
        return [rng.choice(sentences)] if rng.random() < share else []

    def _fault(self, parts: Sequence[str], room: int, rng: Random) -> list[str]:
        weights = self.table.demonstrators.logic
        kind = rng.choices(("ramble", "repeat", "contradiction"), (weights.ramble, weights.repeat, weights.contradiction))[0]
        if kind == "contradiction":
            return [rng.choice(self.table.sentences.contradictions)]
        short = [part for part in parts if _words([part]) <= room]
        if kind == "repeat" and short:
            return [rng.choice(short)]
        return self.ramble(rng.randint(1, self.table.demonstrators.most_rambles), room, rng)

    def ramble(self, sentences: int, room: int, rng: Random) -> list[str]:
        """One sentence beside the point, and more, all different, while there are words left."""
        rambles: list[str] = []
        for template in rng.sample(self.rambles, min(sentences, len(self.rambles))):
            text = template.fill({slot: rng.choice(template.ranges[slot]) for slot in template.slots})
            if not rambles or _words([*rambles, text]) <= room:
                rambles.append(text)
        return rambles


def make_writer(table: Table) -> Writer:
    return Writer(table, templates(table.sentences.rambles, table.lists))


def told_values(case: Case, row: Values, lie: bool, rng: Random) -> dict[str, str]:
    """Values for every slot of a case: the asked ones as asked, the others true or, in a lie, wrong where they can be."""
    values = dict(row)
    for name, slot in case.slots.items():
        if name not in values:
            values[name] = rng.choice(_free(case, slot, values, lie))
    return values


def _free(case: Case, slot: Slot, values: Mapping[str, str], lie: bool) -> list[str]:
    source = slot.wrong_values(values) if lie and slot.of else slot.true_values(values)
    return [value for value in source if not case.taken(slot, value, values)]


def _part_template(part: Part, lie: bool, harm: bool, rng: Random) -> Template:
    if harm and part.harmful:
        return rng.choice(part.harmful)
    return rng.choice(part.wrong if lie and part.wrong else part.right)


def perfect_answer(question: Question) -> str:
    """The first true text of each part, with the first true values."""
    values = dict(question.row)
    for slot in question.case.slots.values():
        if slot.name not in values:
            values[slot.name] = next(v for v in slot.true_values(values) if not question.case.taken(slot, v, values))
    return join_words(part.right[0].fill(values) for part in question.case.parts)


def facts(question: Question, rng: Random) -> str:
    """All parts of an answer, true, in any of their words."""
    values = told_values(question.case, question.row, False, rng)
    return join_words(rng.choice(part.right).fill(values) for part in question.case.parts)


def _words(sentences: Sequence[str]) -> int:
    return sum(len(split_words(sentence)) for sentence in sentences)
