"""Families, their cases and their questions, compiled from the table.

A case's slots are *asked* where its prompts name them (they say what the question is about) and *told* otherwise (they
say what an answer knows). A slot comes from a list or, by a relation, from another slot: `home(animal)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from rlhf.data.words import join_words, split_words
from rlhf.data.world.table import CaseTexts, FamilyTexts, Rates, Table
from rlhf.data.world.template import SLOT, Template, templates
from rlhf.errors import UserError

Values = Mapping[str, str]


@dataclass(frozen=True)
class Slot:
    """`values[None]` for a list, `values[key]` for a relation of another slot's value `key`."""

    name: str
    source: str
    of: str | None
    values: Mapping[str | None, tuple[str, ...]]

    @property
    def range(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value for values in self.values.values() for value in values))

    def true_values(self, row: Values) -> tuple[str, ...]:
        return self.values[row[self.of] if self.of else None]

    def wrong_values(self, row: Values) -> tuple[str, ...]:
        right = self.true_values(row)
        return tuple(value for value in self.range if value not in right)


@dataclass(frozen=True)
class Part:
    """One part of an answer: its sentences, true, false (written as such) and harmful."""

    right: tuple[Template, ...]
    wrong: tuple[Template, ...]
    harmful: tuple[Template, ...]
    knows: bool

    @property
    def can_lie(self) -> bool:
        return bool(self.wrong) or self.knows


@dataclass(frozen=True)
class Case:
    slots: Mapping[str, Slot]
    asked: tuple[str, ...]
    prompts: tuple[Template, ...]
    parts: tuple[Part, ...]

    def rows(self) -> Iterator[dict[str, str]]:
        """Every question's values of the asked slots, in the table's order."""

        def extend(row: dict[str, str], names: Sequence[str]) -> Iterator[dict[str, str]]:
            if not names:
                yield row
                return
            slot = self.slots[names[0]]
            for value in slot.true_values(row):
                if not self.taken(slot, value, row):
                    yield from extend(row | {slot.name: value}, names[1:])

        yield from extend({}, self.asked)

    def draw_row(self, rng: Random) -> dict[str, str]:
        """One question's values of the asked slots."""
        row: dict[str, str] = {}
        for slot in (self.slots[name] for name in self.asked):
            row[slot.name] = rng.choice([value for value in slot.true_values(row) if not self.taken(slot, value, row)])
        return row

    def texts(self) -> Iterator[Template]:
        """All templates: those of prompts and those of parts."""
        yield from self.prompts
        for part in self.parts:
            yield from (*part.right, *part.wrong, *part.harmful)

    def taken(self, slot: Slot, value: str, row: Values) -> bool:
        """Whether another slot of the same source already has this value: a cat meets no cat, a list names nothing twice."""
        return any(
            row[name] == value
            for name in row
            if name != slot.name and (self.slots[name].source, self.slots[name].of) == (slot.source, slot.of)
        )

    def holds(self, row: Values) -> bool:
        """Whether the values belong together: beef or rice, but not beef or beef."""
        return all(
            row[name] in self.slots[name].true_values(row) and not self.taken(self.slots[name], row[name], row)
            for name in self.asked
        )


@dataclass(frozen=True)
class Family:
    name: str
    rates: Rates
    lies: bool
    harms: bool
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Question:
    """What a prompt asks, whatever its words: a family, a case and the values of its asked slots."""

    family: Family
    case: Case
    row: Values = field(hash=False)


@dataclass(frozen=True)
class Questions:
    """All families, and the reading of prompts."""

    families: Mapping[str, Family]
    openers: tuple[str, ...]

    def read(self, prompt: str) -> Question:
        """What `prompt` asks. Case and white space do not matter. Raises UserError where no template reads it."""
        text = join_words(split_words(prompt.lower()))
        for opener in ("", *self.openers):
            asked = text.removeprefix(opener).strip()
            if join_words((opener, asked)) == text and (question := self._read(asked)):
                return question
        raise UserError(f"no prompt of this world: {prompt!r:.200}; its table has no template that reads it")

    def _read(self, text: str) -> Question | None:
        for family in self.families.values():
            for case in family.cases:
                for template in case.prompts:
                    row = template.read(text)
                    if row is not None and case.holds(row):
                        return Question(family, case, row)
        return None

    def prompts(self, case: Case) -> list[str]:
        """Every prompt of a case, in the table's order."""
        return [
            join_words((opener, template.fill(row)))
            for row in case.rows()
            for template in case.prompts
            for opener in ("", *self.openers)
        ]


def compile_questions(table: Table) -> Questions:
    """Raises UserError, without the file's name, for a slot, list or relation that the table does not hold."""
    families = {name: _family(name, texts, table) for name, texts in table.families.items()}
    return Questions(families, table.sentences.openers)


def _family(name: str, texts: FamilyTexts, table: Table) -> Family:
    cases = tuple(_case(f"families.{name}.cases.{i}", case, table) for i, case in enumerate(texts.cases))
    for i, case in enumerate(cases):
        if texts.honest == "lie" and not case.parts[0].can_lie:
            raise UserError(f"families.{name}.cases.{i}.parts.0 cannot lie: give it `wrong` texts, or set honest: boast")
        if texts.harm == "part" and not case.parts[0].harmful:
            raise UserError(f"families.{name}.cases.{i}.parts.0 has no `harmful` texts: give it some, or set harm: insult")
    return Family(name, texts.rates, texts.honest == "lie", texts.harm == "part", cases)


def _case(key: str, texts: CaseTexts, table: Table) -> Case:
    slots: dict[str, Slot] = {}
    for name, source in texts.slots.items():
        slots[name] = _slot(f"{key}.slots.{name}", name, source, slots, table)
    ranges = {name: slot.range for name, slot in slots.items()}
    named = {slot for text in texts.prompts for slot in SLOT.findall(text)}
    asked = tuple(name for name in slots if name in named)
    for name, slot in slots.items():
        if slot.of and slot.of not in asked:
            raise UserError(f"{key}.slots.{name} follows from {slot.of!r}, which no prompt of the case names")
    _check_texts(f"{key}.prompts", texts.prompts, slots, must_name=asked)
    parts = []
    for i, part in enumerate(texts.parts):
        _check_texts(f"{key}.parts.{i}", (*part.right, *part.wrong, *part.harmful), slots)
        told = {slot for text in part.right for slot in SLOT.findall(text) if slot not in asked}
        made = (templates(part.right, ranges), templates(part.wrong, ranges), templates(part.harmful, ranges))
        parts.append(Part(*made, knows=any(slots[name].of for name in told)))
    return Case(slots, asked, templates(texts.prompts, ranges), tuple(parts))


def _slot(key: str, name: str, source: str, known: Mapping[str, Slot], table: Table) -> Slot:
    call = re.fullmatch(r"(\S+)\((\S+)\)", source)
    if call is None:
        if source not in table.lists:
            raise UserError(f"{key}: no list is called {source!r}; the lists are {', '.join(table.lists)}")
        return Slot(name, source, None, {None: table.lists[source]})
    relation, of = call[1], call[2]
    if relation not in table.relations:
        raise UserError(f"{key}: no relation is called {relation!r}; the relations are {', '.join(table.relations)}")
    if of not in known:
        raise UserError(f"{key}: {source!r} needs a slot {of!r} before it; before it are {', '.join(known) or 'none'}")
    facts = table.relations[relation]
    missing = [value for value in known[of].range if value not in facts]
    if missing:
        raise UserError(f"relations.{relation} says nothing about {missing[0]!r}, which {key} needs; add it")
    values: dict[str | None, tuple[str, ...]] = {k: (v,) if isinstance(v, str) else v for k, v in facts.items()}
    return Slot(name, relation, of, values)


def _check_texts(key: str, texts: Sequence[str], slots: Mapping[str, Slot], must_name: Sequence[str] = ()) -> None:
    for text in texts:
        used = set(SLOT.findall(text))
        strange = sorted(used - set(slots))
        if strange:
            raise UserError(f"{key}: {text!r} has a slot {strange[0]!r}; this case has {', '.join(slots)}")
        lacking = [name for name in must_name if name not in used]
        if lacking:
            raise UserError(f"{key}: {text!r} does not name {lacking[0]!r}, which other prompts of this case do")
