"""Passes over rows: each row once a pass, the last step takes what is left, and a look at the end."""

from __future__ import annotations

import pytest

from rlhf.training.loop import Passes


@pytest.mark.parametrize(("rows", "epochs", "a_step", "steps"), [(8, 1, 8, 1), (9, 1, 8, 2), (9, 3, 8, 4), (1, 1, 8, 1)])
def test_every_pass_has_every_row_once(rows: int, epochs: int, a_step: int, steps: int) -> None:
    passes = Passes(epochs, a_step, eval_every_steps=1, seed=3)
    assert passes.steps(rows) == steps
    drawn = [row for step in range(steps) for row in passes.draw(rows, step)]
    assert len(drawn) == rows * epochs
    for start in range(0, len(drawn), rows):
        assert sorted(drawn[start : start + rows]) == list(range(rows))
    assert all(len(passes.draw(rows, step)) == a_step for step in range(steps - 1))


def test_passes_come_in_other_orders_and_repeat_with_the_seed() -> None:
    passes = Passes(epochs=2, rows_per_step=20, eval_every_steps=1, seed=3)
    first, second = passes.draw(20, 0), passes.draw(20, 1)
    assert first != second
    assert passes.draw(20, 0) == first
    assert Passes(2, 20, 1, seed=4).draw(20, 0) != first


def test_validation_is_looked_at_every_so_often_and_at_the_end() -> None:
    passes = Passes(epochs=1, rows_per_step=2, eval_every_steps=3, seed=0)
    assert [step for step in range(1, 6) if passes.evaluates(10, step)] == [3, 5]
