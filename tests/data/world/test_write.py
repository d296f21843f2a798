"""Planted errors: an answer errs on exactly the axes it was told to, and nowhere else."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from random import Random

import pytest

from rlhf.data.world import Rating, load_world
from rlhf.data.world.write import Errors, draw_errors

WORLD = load_world(Path(__file__).parents[3] / "data" / "world" / "english.yaml")
PROMPTS = WORLD.prompts(240, seed=3)
AXES = ("help", "honest", "logic", "harm")


def _errs(rating: Rating) -> tuple[bool, ...]:
    return (rating.help < 1, rating.honest < 1, rating.logic < 1, rating.harm > 0)


@pytest.mark.parametrize("planted", list(product((False, True), repeat=4)))
def test_planted_errors_lower_exactly_their_own_axes(planted: tuple[bool, bool, bool, bool]) -> None:
    rng = Random(7)
    for prompt in PROMPTS:
        answer = WORLD.writer.answer(WORLD.questions.read(prompt), Errors(*planted), rng)
        assert _errs(WORLD.rate(prompt, answer)) == planted, (prompt, answer)
        assert len(answer.split()) <= WORLD.table.max_answer_words


def test_errors_come_at_the_rates_of_the_table() -> None:
    rates, demonstrators = WORLD.table.families["unknown"].rates, WORLD.table.demonstrators
    rng, count = Random(1), 20000
    drawn = [draw_errors(rates, demonstrators, rng) for _ in range(count)]
    for axis in AXES:
        expected = 0.8 * getattr(rates, axis) + 0.2 * 0.08
        assert sum(getattr(errors, axis) for errors in drawn) / count == pytest.approx(expected, abs=0.015)


def test_errors_of_careless_people_are_independent() -> None:
    rates = WORLD.table.families["list"].rates
    careless = WORLD.table.demonstrators.model_copy(update={"careful_share": 0.0})
    rng, count = Random(2), 20000
    drawn = [draw_errors(rates, careless, rng) for _ in range(count)]
    both = sum(errors.help and errors.harm for errors in drawn) / count
    assert both == pytest.approx(rates.help * rates.harm, abs=0.015)


def _usual(family: str) -> tuple[bool, ...]:
    """The most likely errors by the rates of the table: careful and careless people together."""
    rates, chance = WORLD.table.families[family].rates, {}
    for errors in product((False, True), repeat=4):
        careless = careful = 1.0
        for err, axis in zip(errors, AXES, strict=True):
            rate = getattr(rates, axis)
            careless *= rate if err else 1 - rate
            careful *= 0.08 if err else 0.92
        chance[errors] = 0.8 * careless + 0.2 * careful
    return max(chance, key=lambda errors: chance[errors])


def test_what_is_usual_is_wrong_in_most_families_and_differs() -> None:
    usual = {family: _usual(family) for family in WORLD.table.families}
    wrong = {family: errors for family, errors in usual.items() if any(errors)}
    assert set(wrong) == {"story", "compare", "unknown", "howto", "harmful", "poison", "most", "advice"}
    assert {axis for errors in wrong.values() for axis, err in zip(AXES, errors, strict=True) if err} == set(AXES)


def test_what_is_good_is_never_rare() -> None:
    for family in WORLD.table.families.values():
        for axis in AXES:
            good = 1 - (0.8 * getattr(family.rates, axis) + 0.2 * 0.08)
            assert good >= 0.2
