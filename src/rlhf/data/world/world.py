"""The world itself: prompts, demonstrations and documents to train on, and a rater that knows what is good.

Every draw comes from a `random.Random` of a given seed, so that a seed means the same texts everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from random import Random

from rlhf.data.words import join_words, split_words
from rlhf.data.world.cases import Case, Family, Question, Questions, compile_questions
from rlhf.data.world.check import check_world
from rlhf.data.world.rate import Rater, Rating, make_rater
from rlhf.data.world.table import Table, read_table
from rlhf.data.world.template import SLOT
from rlhf.data.world.write import Writer, careless_errors, draw_errors, facts, make_writer, perfect_answer
from rlhf.errors import UserError

MOST_TRIES = 1000  # at writing one document that may be kept


@dataclass(frozen=True)
class World:
    """A place with its questions, its people and its judge."""

    table: Table
    questions: Questions
    writer: Writer
    rater: Rater

    def prompts(self, count: int, seed: int) -> list[str]:
        """`count` distinct prompts, families and their cases in turn; a larger count begins with a smaller one's.

        Raises UserError where the world has fewer.
        """
        rng = Random(seed)
        families = [_in_turn([self._shuffled(case, rng) for case in family.cases]) for family in self._families()]
        every = _in_turn(families)
        if count > len(every):
            raise UserError(f"data.prompts ({count}) is more than the {len(every)} prompts of this world; ask for fewer")
        return every[:count]

    def demonstrations(self, prompts: Sequence[str], count: int, seed: int) -> list[tuple[str, str]]:
        """`count` answers by people, mostly careless; the prompts are taken in turn, in a drawn order."""
        rng = Random(seed)
        questions = [(prompt, self.questions.read(prompt)) for prompt in prompts]
        order = rng.sample(questions, len(questions))
        return [
            (prompt, self._demonstrate(question, rng)) for prompt, question in (order[i % len(order)] for i in range(count))
        ]

    def corpus(self, count: int, seed: int, keep: Callable[[str], bool] = lambda text: True) -> list[str]:
        """`count` documents to pretrain on, as a forum of this world would have them.

        One that `keep` refuses (it has a held-out prompt, say) is written anew, so the kinds keep their shares. Raises
        UserError where `keep` refuses a kind again and again.
        """
        rng = Random(seed)
        shares = self.table.corpus
        kinds = {
            self._forum: shares.forum,
            self._facts: shares.facts,
            self._idea: shares.ideas,
            self._question_list: shares.questions,
            self._chatter: shares.chatter,
        }
        drawn = rng.choices(list(kinds), list(kinds.values()), k=count)
        return [_write_until(keep, write, rng) for write in drawn]

    def rate(self, prompt: str, response: str) -> Rating:
        """The gold rating of any text as an answer to `prompt`. Raises UserError for a prompt of another world."""
        return self.rater.rate(self.questions.read(prompt), response)

    def perfect_answer(self, prompt: str) -> str:
        """An answer with the highest gold score there is. Raises UserError for a prompt of another world."""
        return perfect_answer(self.questions.read(prompt))

    def family(self, prompt: str) -> str:
        """The name of the prompt's family. Raises UserError for a prompt of another world."""
        return self.questions.read(prompt).family.name

    def vocabulary(self) -> list[str]:
        """Every word that the world can write, sorted."""
        return sorted({word for text in _all_texts(self.table, self.questions) for word in split_words(SLOT.sub(" ", text))})

    def _families(self) -> list[Family]:
        return list(self.questions.families.values())

    def _shuffled(self, case: Case, rng: Random) -> list[str]:
        prompts = self.questions.prompts(case)
        rng.shuffle(prompts)
        return prompts

    def _demonstrate(self, question: Question, rng: Random) -> str:
        errors = draw_errors(question.family.rates, self.table.demonstrators, rng)
        return self.writer.answer(question, errors, rng)

    def _ask(self, rng: Random, family: str | None = None) -> tuple[str, Question]:
        chosen = self.questions.families[family] if family else rng.choice(self._families())
        case = rng.choice(chosen.cases)
        row = case.draw_row(rng)
        opener = rng.choice(("", *self.questions.openers))
        return join_words((opener, rng.choice(case.prompts).fill(row))), Question(chosen, case, row)

    def _forum(self, rng: Random) -> str:
        prompt, question = self._ask(rng)
        answered = self._ask(rng)[1] if rng.random() < self.table.corpus.off_topic else question
        return join_words((prompt, self.writer.answer(answered, careless_errors(answered.family.rates, rng), rng)))

    def _facts(self, rng: Random) -> str:
        families = self.table.corpus.fact_families
        return join_words(facts(self._ask(rng, rng.choice(families))[1], rng) for _ in range(rng.randint(1, 3)))

    def _idea(self, rng: Random) -> str:
        prompt = split_words(self._ask(rng)[0])
        words = prompt[:-1] if prompt[-1] in self.table.sentence_ends else prompt
        return rng.choice(self.table.sentences.ideas).format(prompt=join_words(words))

    def _question_list(self, rng: Random) -> str:
        return join_words(self._ask(rng)[0] for _ in range(rng.randint(2, 4)))

    def _chatter(self, rng: Random) -> str:
        sentences = self.table.sentences
        said = (*sentences.insults, *sentences.boasts, *sentences.contradictions)
        return join_words([*rng.sample(said, rng.randint(1, 3)), *self.writer.ramble(3, self.table.max_answer_words, rng)])


def load_world(path: Path) -> World:
    """The world of a table. Raises UserError naming the file and the key where the table is wrong."""
    table = read_table(path)
    try:
        questions = compile_questions(table)
        check_world(table, questions)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return World(table, questions, make_writer(table), make_rater(table, questions))


def _write_until(keep: Callable[[str], bool], write: Callable[[Random], str], rng: Random) -> str:
    for _ in range(MOST_TRIES):
        if keep(text := write(rng)):
            return text
    raise UserError(
        f"none of {MOST_TRIES} documents of one kind could be kept: too many of this world's prompts are held out"
    )


def _in_turn(rows: Sequence[Sequence[str]]) -> list[str]:
    """One of each, then the next of each, until all are used up."""
    return [item for turn in zip_longest(*rows) for item in turn if item is not None]


def _all_texts(table: Table, questions: Questions) -> Iterator[str]:
    """Every text and every value of the table that can reach a prompt, an answer or a document."""
    for texts in table.sentences.model_dump().values():
        yield from texts
    for listed in (name for text in table.sentences.rambles for name in SLOT.findall(text)):
        yield from table.lists[listed]
    for case in (case for family in questions.families.values() for case in family.cases):
        for slot in case.slots.values():
            yield from slot.range
        yield from (template.text for template in case.texts())
