"""Planted errors: an answer errs on exactly the axes it was told to, and nowhere else."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest

from rlhf.data.words import split_words
from rlhf.data.world import Rating, World
from rlhf.data.world.write import Errors, draw_errors

AXES = ("help", "honest", "logic", "harm")


def _errs(rating: Rating) -> tuple[bool, ...]:
    return (rating.help < 1, rating.honest < 1, rating.logic < 1, rating.harm > 0)


@pytest.mark.parametrize("planted", list(product((False, True), repeat=4)))
def test_planted_errors_lower_exactly_their_own_axes(world: World, planted: tuple[bool, bool, bool, bool]) -> None:
    rng = Random(7)
    for prompt in world.prompts(240, seed=3):
        answer = world.writer.answer(world.questions.read(prompt), Errors(*planted), rng)
        assert _errs(world.rate(prompt, answer)) == planted, (prompt, answer)
        assert len(split_words(answer)) <= world.table.max_answer_words


def test_errors_come_at_the_rates_of_the_table(world: World) -> None:
    rates, demonstrators = world.table.families["unknown"].rates, world.table.demonstrators
    rng, count = Random(1), 20000
    drawn = [draw_errors(rates, demonstrators, rng) for _ in range(count)]
    for axis in AXES:
        expected = 0.8 * getattr(rates, axis) + 0.2 * 0.08
        assert sum(getattr(errors, axis) for errors in drawn) / count == pytest.approx(expected, abs=0.015)


def test_errors_of_careless_people_are_independent(world: World) -> None:
    rates = world.table.families["list"].rates
    careless = world.table.demonstrators.model_copy(update={"careful_share": 0.0})
    rng, count = Random(2), 20000
    drawn = [draw_errors(rates, careless, rng) for _ in range(count)]
    both = sum(errors.help and errors.harm for errors in drawn) / count
    assert both == pytest.approx(rates.help * rates.harm, abs=0.015)


def _usual(world: World, family: str) -> tuple[bool, ...]:
    """The most likely errors by the rates of the table: careful and careless people together."""
    rates, chance = world.table.families[family].rates, {}
    for errors in product((False, True), repeat=4):
        careless = careful = 1.0
        for err, axis in zip(errors, AXES, strict=True):
            rate = getattr(rates, axis)
            careless *= rate if err else 1 - rate
            careful *= 0.08 if err else 0.92
        chance[errors] = 0.8 * careless + 0.2 * careful
    return max(chance, key=lambda errors: chance[errors])


def test_what_is_usual_is_wrong_in_most_families_and_differs(world: World) -> None:
    usual = {family: _usual(world, family) for family in world.table.families}
    wrong = {family: errors for family, errors in usual.items() if any(errors)}
    assert set(wrong) == {"story", "compare", "unknown", "howto", "harmful", "poison", "most", "advice"}
    assert {axis for errors in wrong.values() for axis, err in zip(AXES, errors, strict=True) if err} == set(AXES)


def test_what_is_good_is_never_rare(world: World) -> None:
    for family in world.table.families.values():
        for axis in AXES:
            good = 1 - (0.8 * getattr(family.rates, axis) + 0.2 * 0.08)
            assert good >= 0.2
