"""What a table must keep beyond its shape: lengths, readability, and shares that add up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rlhf.data.words import split_words
from rlhf.data.world.cases import Case, Questions
from rlhf.data.world.table import Table
from rlhf.data.world.template import SLOT, Template, templates
from rlhf.errors import UserError


def check_world(table: Table, questions: Questions) -> None:
    """Raises UserError naming the key for a table that would write too long, or what cannot be read back."""
    _check_shares(table)
    _check_shared_sentences(table)
    for key, case in _cases(questions):
        _check_lengths(key, case, table)
        _check_ends(key, case, table)
        _check_reading(key, case, questions)


def _cases(questions: Questions) -> Iterator[tuple[str, Case]]:
    for family in questions.families.values():
        for i, case in enumerate(family.cases):
            yield f"families.{family.name}.cases.{i}", case


def _check_shares(table: Table) -> None:
    corpus = table.corpus
    total = corpus.forum + corpus.facts + corpus.ideas + corpus.questions + corpus.chatter
    if abs(total - 1) > 1e-9:
        raise UserError(f"corpus: forum, facts, ideas, questions and chatter add up to {total:g}; they must add up to 1")
    for name in corpus.fact_families:
        if name not in table.families:
            raise UserError(f"corpus.fact_families: no family is called {name!r}; they are {', '.join(table.families)}")


def _check_shared_sentences(table: Table) -> None:
    for name, texts in table.sentences.model_dump().items():
        allowed = {"rambles": set(table.lists), "ideas": {"prompt"}}.get(name, set())
        for text in texts:
            strange = sorted(set(SLOT.findall(text)) - allowed)
            if strange:
                raise UserError(f"sentences.{name}: {text!r} has a slot {strange[0]!r}, which it cannot have")
            if name not in ("openers", "ideas"):
                _check_sentence(f"sentences.{name}", text, table.sentence_ends)


def _check_ends(key: str, case: Case, table: Table) -> None:
    for i, part in enumerate(case.parts):
        for template in (*part.right, *part.wrong, *part.harmful):
            _check_sentence(f"{key}.parts.{i}", template.text, table.sentence_ends)


def _check_sentence(key: str, text: str, ends: Sequence[str]) -> None:
    *inner, last = split_words(text)
    if last not in ends or any(word in ends for word in inner):
        raise UserError(
            f"{key}: {text!r} must be one sentence, with one of {' '.join(ends)} as its last word and nowhere else"
        )


def _longest(made: Sequence[Template]) -> int:
    return max((template.most_words for template in made), default=0)


def _check_lengths(key: str, case: Case, table: Table) -> None:
    sentences = table.sentences
    opener = max(len(split_words(text)) for text in sentences.openers)
    prompt = opener + _longest(case.prompts)
    if prompt > table.max_prompt_words:
        raise UserError(f"{key}.prompts: the longest has {prompt} words, max_prompt_words is {table.max_prompt_words}")
    first = max(len(split_words(text)) for text in (*sentences.insults, *sentences.polite))
    last = max(len(split_words(text)) for text in (*sentences.boasts, *sentences.closings))
    fault = max(_longest(templates(texts, table.lists)) for texts in (sentences.rambles, sentences.contradictions))
    parts = sum(_longest((*part.right, *part.wrong, *part.harmful)) for part in case.parts)
    answer = first + parts + fault + last
    if answer > table.max_answer_words:
        raise UserError(
            f"{key}.parts: with an opening, a fault and a closing the longest answer has {answer} words, "
            f"max_answer_words is {table.max_answer_words}"
        )


def _check_reading(key: str, case: Case, questions: Questions) -> None:
    """Every prompt template, filled, must be read as what it asks."""
    row = next(case.rows(), None)
    if row is None:
        raise UserError(f"{key}.slots: no values go together, so there is nothing to ask")
    for template in case.prompts:
        read = questions.read(template.fill(row))
        if read.case is not case or read.row != row:
            raise UserError(f"{key}.prompts: {template.text!r} is read as another question, of {read.family.name}")
