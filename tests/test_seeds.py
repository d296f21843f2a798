"""Random numbers by name, and rows in an order that needs no memory of what came before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlhf.seeds import derive_seed, draw_rows, shuffled


def slow_draw(rows: int, seed: int, start: int, count: int) -> list[int]:
    """The endless list written out from its beginning, and cut."""
    endless: list[int] = []
    epoch = 0
    while len(endless) < start + count:
        endless += shuffled(rows, seed, "epoch", epoch)
        epoch += 1
    return endless[start : start + count]


@given(st.integers(1, 20), st.integers(0, 5), st.integers(0, 70), st.integers(1, 60))
def test_rows_are_a_piece_of_one_endless_list(rows: int, seed: int, start: int, count: int) -> None:
    assert draw_rows(rows, seed, start, count) == slow_draw(rows, seed, start, count)


@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 4))
def test_each_row_is_used_once_an_epoch(rows: int, a_step: int, epochs: int) -> None:
    total = rows * epochs
    drawn = [i for start in range(0, total, a_step) for i in draw_rows(rows, 3, start, min(a_step, total - start))]
    for epoch in range(epochs):
        assert sorted(drawn[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_epochs_have_orders_of_their_own_and_so_have_seeds() -> None:
    first, second = draw_rows(50, 0, 0, 50), draw_rows(50, 0, 50, 50)
    assert first != second
    assert draw_rows(50, 1, 0, 50) != first
    assert first != list(range(50))


@given(st.integers(0, 2**31 - 1), st.lists(st.one_of(st.text(max_size=5), st.integers(0, 99)), max_size=3))
def test_a_seed_has_63_bits_and_is_the_same_each_time(seed: int, labels: list[str | int]) -> None:
    assert 0 <= derive_seed(seed, *labels) < 2**63
    assert derive_seed(seed, *labels) == derive_seed(seed, *labels)


def test_the_seed_of_a_name_is_the_first_63_bits_of_its_sha256() -> None:
    """printf '7/ppo/rollout/3' | sha256sum"""
    assert derive_seed(7, "ppo", "rollout", 3) == 0x05DDDF25D595CA6C >> 1


def test_names_do_not_collide() -> None:
    names = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a", 2), (1, "a", 1), (0, "a", "b"), (0, "b", "a")]
    assert len({derive_seed(*name) for name in names}) == len(names)
