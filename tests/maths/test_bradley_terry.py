from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.maths import bradley_terry
from rlhf.maths.bradley_terry import strengths
from tests.helpers import NAN, assert_near, float64
from tests.maths import twins


def test_two_items_by_hand() -> None:
    # 3 wins of 4: log odds log 3, half to each side. Information 4 * 3/4 * 1/4 = 3/4, so the difference has variance 4/3 and
    # each side, half of the difference, variance 1/3.
    scores, errors = strengths(float64([[0, 3], [1, 0]]))
    assert_near(scores, [math.log(3) / 2, -math.log(3) / 2])
    assert_near(errors, [1 / math.sqrt(3)] * 2)


def test_a_tie_is_half_a_win_to_both() -> None:
    # 2 wins and 2 ties are 3 wins to 1
    scores, errors = strengths(float64([[0, 2], [0, 0]]), float64([[0, 2], [2, 0]]))
    assert_near(scores, [math.log(3) / 2, -math.log(3) / 2])
    assert_near(errors, [1 / math.sqrt(3)] * 2)


def test_ties_alone_are_even() -> None:
    scores, _ = strengths(torch.zeros(3, 3, dtype=torch.float64), float64([[0, 1, 0], [1, 0, 1], [0, 1, 0]]))
    assert_near(scores, [0.0, 0.0, 0.0])


def test_three_even_items_by_hand() -> None:
    # 8 meetings a pair: information (8/4)(3I - J), on the plane of sum 0 that is 6; variance (1/6)(1 - 1/3) = 1/9.
    scores, errors = strengths(float64([[0, 4, 4], [4, 0, 4], [4, 4, 0]]))
    assert_near(scores, [0.0, 0.0, 0.0])
    assert_near(errors, [1 / 3] * 3)


def test_a_cycle_is_even() -> None:
    scores, _ = strengths(float64([[0, 1, 0], [0, 0, 1], [1, 0, 0]]))
    assert_near(scores, [0.0, 0.0, 0.0])


@given(st.lists(st.floats(-4, 4), min_size=2, max_size=6), st.floats(0.5, 1e6))
def test_exact_proportions_give_the_scores_back(truth: list[float], met: float) -> None:
    wins = [[0.0 if i == j else met * twins.sigmoid(a - b) for j, b in enumerate(truth)] for i, a in enumerate(truth)]
    scores, _ = strengths(float64(wins))
    assert_near(scores, [x - twins.mean(truth) for x in truth], 1e-7)


@st.composite
def tournaments(draw: st.DrawFn) -> list[list[float]]:
    """Counts with a cycle through all items added, so that a maximum exists."""
    size = draw(st.integers(2, 6))
    count = st.integers(0, 20)
    return [[0.0 if i == j else float(draw(count) + (j == (i + 1) % size)) for j in range(size)] for i in range(size)]


@given(tournaments())
def test_at_the_maximum_expected_wins_are_the_wins(wins: list[list[float]]) -> None:
    size = range(len(wins))
    scores, _ = strengths(float64(wins))
    met = [[wins[i][j] + wins[j][i] for j in size] for i in size]
    assert_near(twins.expected_wins(scores.tolist(), met), [sum(row) for row in wins], 1e-8)
    assert_near(scores.sum(), 0.0)


@given(tournaments())
def test_standard_errors_against_the_differentiated_likelihood(wins: list[list[float]]) -> None:
    """The last score is minus the sum of the others: invert the curvature over those, and carry it over to the last."""
    counted = float64(wins)
    scores, errors = strengths(counted)

    def negative_log_likelihood(free: torch.Tensor) -> torch.Tensor:
        every = torch.cat([free, -free.sum().unsqueeze(0)])
        chance = torch.sigmoid(every.unsqueeze(1) - every.unsqueeze(0))
        return -(counted * chance.log()).sum()

    curvature = torch.autograd.functional.hessian(negative_log_likelihood, scores[:-1])
    size = len(wins)
    to_all = torch.cat([torch.eye(size - 1, dtype=torch.float64), -torch.ones(1, size - 1, dtype=torch.float64)])
    covariance = to_all @ torch.linalg.inv(curvature) @ to_all.T
    assert_near(errors, covariance.diagonal().sqrt(), 1e-6)


@given(tournaments(), st.randoms(use_true_random=False))
def test_items_may_come_in_any_order(wins: list[list[float]], source) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(wins)))
    source.shuffle(order)
    counted = float64(wins)
    for shuffled, plain in zip(strengths(counted[order][:, order]), strengths(counted), strict=True):
        assert_near(shuffled, plain[order], 1e-7)


@pytest.mark.parametrize("odds", [1e3, 1e6, 1e9])
def test_lopsided_results(odds: float) -> None:
    scores, _ = strengths(float64([[0, odds], [1, 0]]))
    assert_near(scores, [math.log(odds) / 2, -math.log(odds) / 2], 1e-7)


@pytest.mark.parametrize("odds", [99.0, 1e6])
def test_a_long_ladder(odds: float) -> None:
    """Each item meets the next one only: log odds a rung."""
    wins = torch.diag(torch.full((11,), odds, dtype=torch.float64), 1) + torch.diag(torch.ones(11, dtype=torch.float64), -1)
    scores, _ = strengths(wins)
    assert_near(scores, [(5.5 - i) * math.log(odds) for i in range(12)], 1e-7)


def test_a_step_that_would_overshoot() -> None:
    """From even scores, full Newton steps end in a singular matrix here."""
    wins = float64([[0, 1010, 1e6, 0], [0, 0, 10, 1e7], [0, 1, 0, 10], [10, 0, 1e7, 0]])
    scores, _ = strengths(wins)
    assert_near(twins.expected_wins(scores.tolist(), (wins + wins.T).tolist()), wins.sum(1), 1e-8)


def test_counts_too_far_apart_are_refused_and_not_answered_wrongly() -> None:
    ladder = torch.diag(torch.full((11,), 1e15, dtype=torch.float64), 1) + torch.diag(
        torch.ones(11, dtype=torch.float64), -1
    )
    with pytest.raises(ValueError, match=r"wins from 1 to 1e\+15 are too far apart"):
        strengths(ladder)


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.int64, torch.float32),
    ],
)
def test_dtypes_and_inputs(dtype: torch.dtype, wanted: torch.dtype) -> None:
    wins = torch.tensor([[0, 3], [1, 0]], dtype=dtype)
    before = wins.clone()
    for result in strengths(wins, torch.zeros_like(wins)):
        assert result.dtype == wanted
        assert result.shape == (2,)
    assert torch.equal(wins, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_counts_of_any_dtype_are_computed_in_float64(dtype: torch.dtype) -> None:
    """Where float32 ends in a singular matrix: a ladder of odds 2^20."""
    wins = torch.diag(torch.full((11,), 2**20), 1) + torch.diag(torch.ones(11, dtype=torch.int64), -1)
    scores, errors = strengths(wins.to(dtype))
    assert_near(scores, [(5.5 - i) * 20 * math.log(2) for i in range(12)], 1e-6)
    assert_near(errors, strengths(wins.double())[1], 1e-6)


def test_ties_are_halved_in_float64() -> None:
    # 2^24 + 1 ties are 2^23 + 0.5 wins to both, which float32 does not hold
    scores, _ = strengths(float64([[0, 2**23], [0, 0]]), torch.tensor([[0, 2**24 + 1], [2**24 + 1, 0]]))
    half = math.log((2**24 + 0.5) / (2**23 + 0.5)) / 2
    assert_near(scores, [half, -half], 1e-10)


def test_whole_numbers_give_scores_of_the_default_dtype() -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        results = strengths(torch.tensor([[0, 3], [1, 0]]))
    finally:
        torch.set_default_dtype(before)
    assert [result.dtype for result in results] == [torch.float64] * 2


def test_the_counts_say_where_it_is_computed_and_not_the_default_device() -> None:
    wins = float64([[0, 3], [1, 0]])
    with torch.device("meta"):  # holds no numbers: nothing computed there could be returned
        scores, _ = strengths(wins)
    assert_near(scores, [math.log(3) / 2, -math.log(3) / 2])


def test_the_exact_maximum_is_near_enough_whatever_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bradley_terry, "NEAR_ENOUGH", 0.0)
    assert strengths(float64([[0, 4], [4, 0]]))[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("wins", "message"),
    [
        # 0 never lost, 1 never won
        ([[0, 3], [0, 0]], r"items \[0\] were never beaten by the others, items \[1\] never beat the others"),
        # 0 and 1 beat one another and 2; 2 beat nobody
        (
            [[0, 1, 1], [1, 0, 1], [0, 0, 0]],
            r"items \[0, 1\] were never beaten by the others, items \[2\] never beat the others",
        ),
        # a chain 2 > 0 > 1: the item in the middle is not at fault
        (
            [[0, 1, 0], [0, 0, 0], [1, 0, 0]],
            r"items \[2\] were never beaten by the others, items \[1\] never beat the others",
        ),
        # two that never met beat the third
        (
            [[0, 0, 1], [0, 0, 1], [0, 0, 0]],
            r"items \[0, 1\] were never beaten by the others, items \[2\] never beat the others",
        ),
        # two that never met lost to the third
        (
            [[0, 1, 1], [0, 0, 0], [0, 0, 0]],
            r"items \[0\] were never beaten by the others, items \[1, 2\] never beat the others",
        ),
        # two leagues
        ([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], r"items \[0, 1\] never met items \[2, 3\]"),
        ([[0, 0], [0, 0]], r"items \[0\] never met items \[1\]"),
    ],
)
def test_no_finite_maximum_names_the_items(wins: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strengths(float64(wins))


def test_a_tie_connects() -> None:
    scores, _ = strengths(float64([[0, 3], [0, 0]]), float64([[0, 1], [1, 0]]))  # 3.5 wins to 0.5
    assert_near(scores, [math.log(7) / 2, -math.log(7) / 2])


def test_a_beaten_path_as_long_as_there_are_items_connects() -> None:
    size = 9
    cycle = torch.roll(torch.eye(size, dtype=torch.float64), 1, 1)
    assert_near(strengths(cycle)[0], torch.zeros(size))


@pytest.mark.parametrize(
    ("wins", "ties", "message"),
    [
        (torch.zeros(2, 3), None, r"wins must be \(N, N\) with N >= 2, not \(2, 3\)"),
        (torch.zeros(3), None, r"not \(3,\)"),
        (torch.zeros(1, 1), None, r"not \(1, 1\)"),
        (float64([[0, -1], [1, 0]]), None, r"wins\[0, 1\] is -1\.0"),
        (float64([[0, 1], [NAN, 0]]), None, r"wins\[1, 0\] is nan"),
        (float64([[0, 1], [math.inf, 0]]), None, r"wins\[1, 0\] is inf"),
        (float64([[0, 1], [1, 2]]), None, r"wins\[1, 1\] is 2\.0.*0 on the diagonal"),
        (float64([[0, 1], [1, 0]]), float64([[0, 2], [1, 0]]), r"ties\[0, 1\] is 2\.0, ties\[1, 0\] 1\.0"),
        (float64([[0, 1], [1, 0]]), float64([[0, -2], [-2, 0]]), r"ties\[0, 1\] is -2\.0"),
        (float64([[0, 1], [1, 0]]), torch.zeros(3, 3), r"ties \(3, 3\) and wins \(2, 2\)"),
    ],
)
def test_refusals(wins: torch.Tensor, ties: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strengths(wins, ties)
