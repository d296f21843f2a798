"""Requests are spread over the minute, and none begins that could go beyond the budget."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.errors import UserError
from rlhf.runtime.endpoint.limits import Budget, Pace


@given(st.integers(1, 600), st.lists(st.floats(0, 5), min_size=2, max_size=30))
def test_turns_are_at_least_a_minutes_share_apart(per_minute: int, gaps: list[float]) -> None:
    now = [0.0]
    pace = Pace(per_minute, clock=lambda: now[0])
    begun = []
    for gap in gaps:
        now[0] += gap
        begun.append(now[0] + pace.turn())
    assert all(later - earlier >= 60 / per_minute - 1e-9 for earlier, later in pairwise(begun))


def test_the_first_turn_is_free_and_a_late_one_too() -> None:
    now = [100.0]
    pace = Pace(6, clock=lambda: now[0])
    assert [pace.turn(), pace.turn()] == [0.0, 10.0]
    now[0] = 500.0
    assert pace.turn() == 0.0
    assert [Pace(0).turn() for _ in range(3)] == [0.0] * 3


@given(st.integers(0, 600), st.floats(0.1, 100), st.floats(0, 1))
def test_while_the_server_wants_to_be_left_alone_nobody_begins(per_minute: int, seconds: float, share: float) -> None:
    now = [0.0]
    pace = Pace(per_minute, clock=lambda: now[0])
    pace.turn()
    pace.hold(seconds)
    pace.hold(seconds / 2)
    now[0] = share * seconds
    for _ in range(3):
        assert now[0] + pace.turn() >= seconds - 1e-9
    now[0] = 2000.0
    assert pace.turn() == 0.0


def test_the_request_after_the_last_one_is_refused() -> None:
    budget = Budget(most_requests=2, most_tokens=0)
    budget.begin(1000, again=False)
    budget.begin(1000, again=True)
    with pytest.raises(UserError, match=r"endpoint\.most_requests \(2\) are used up"):
        budget.begin(1, again=False)
    assert (budget.requests, budget.retries) == (2, 1)


@given(st.integers(1, 500), st.lists(st.tuples(st.integers(1, 100), st.floats(0, 1)), max_size=40))
def test_tokens_never_go_beyond_the_budget_whatever_requests_under_way_will_cost(
    most: int, requests: list[tuple[int, float]]
) -> None:
    budget = Budget(most_requests=0, most_tokens=most)
    under_way: list[tuple[int, int]] = []
    for place, (bound, share) in enumerate(requests):
        try:
            budget.begin(bound, again=False)
        except UserError:
            assert budget.tokens + sum(bound for bound, _ in under_way) + bound > most
            continue
        under_way.append((bound, int(bound * share)))
        if place % 2:
            budget.end(*under_way.pop(0))
    for bound, used in under_way:
        budget.end(bound, used)
    assert budget.tokens <= most
    assert budget.reserved == 0
