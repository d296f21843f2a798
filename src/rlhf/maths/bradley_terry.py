"""Strengths of several items from who beat whom (SPEC eq. 4): whole models are ranked by it, from their head-to-heads."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_ITERATIONS = 200
NEAR_ENOUGH = 1e-6  # of the maximum, in standard errors, before the last step: convergence is quadratic


class OpenEnded(ValueError):
    """Results that fix no finite strengths. `about` has a place `{}` for each group of items; the message is both."""

    def __init__(self, about: str, *groups: list[int]) -> None:
        super().__init__(about.format(*(f"items {group}" for group in groups)))
        self.about = about
        self.groups = groups


def strengths(wins: Tensor, ties: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Maximum-likelihood Bradley-Terry scores and their standard errors (Bradley and Terry 1952; Hunter 2004).

    wins: (N, N), wins[i, j] is how often i beat j. ties: (N, N), symmetric, the number of ties of each pair; a tie is
    half a win to both. Returns strengths (N,), log lambda, centred to sum 0, and standard errors (N,) under that
    constraint, from the curvature at the maximum. Computed in float64, returned in the dtype of `wins` (at least float32).

    Raises ValueError for shapes that do not match, counts that are negative or not finite, a non-zero diagonal, ties
    that are not symmetric; and OpenEnded, which is one, for results without a finite maximum (Ford 1957), with the items
    at fault.
    """
    counted = _counts(wins, ties)
    _refuse_open_ended(counted)
    found, information = _maximise(counted)
    covariance = _inverse_across_constants(information)
    dtype = torch.promote_types(wins.dtype, torch.float32) if wins.is_floating_point() else torch.get_default_dtype()
    return found.to(dtype), covariance.diagonal().clamp(min=0.0).sqrt().to(dtype)


def _counts(wins: Tensor, ties: Tensor | None) -> Tensor:
    """(N, N) in float64: wins plus half the ties, or ValueError."""
    if wins.dim() != 2 or wins.shape[0] != wins.shape[1] or len(wins) < 2:
        raise ValueError(f"wins must be (N, N) with N >= 2, not {tuple(wins.shape)}")
    _refuse_bad_counts("wins", wins)
    counted = wins.detach().to(torch.float64)
    if ties is None:
        return counted
    if ties.shape != wins.shape:
        raise ValueError(f"ties {tuple(ties.shape)} and wins {tuple(wins.shape)} must have one shape")
    _refuse_bad_counts("ties", ties)
    if not torch.equal(ties, ties.T):
        i, j = (ties != ties.T).nonzero()[0].tolist()
        raise ValueError(
            f"ties must be symmetric: ties[{i}, {j}] is {ties[i, j].item()}, ties[{j}, {i}] {ties[j, i].item()}"
        )
    return counted + ties.detach().to(torch.float64) / 2.0


def _refuse_bad_counts(name: str, counts: Tensor) -> None:
    bad = ~((counts >= 0) & counts.isfinite())
    bad |= torch.diag(counts.diagonal() != 0)  # nothing meets itself
    if bool(bad.any()):
        i, j = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{name}[{i}, {j}] is {counts[i, j].item()}: counts are finite, not negative, and 0 on the diagonal"
        )


def _refuse_open_ended(counted: Tensor) -> None:
    """Ford's condition: however the items are cut in two, each part has beaten the other at least once."""
    beats = _reachable(counted > 0)
    met = _reachable((counted + counted.T) > 0)
    if not bool(met.all()):
        raise OpenEnded("{} never met {}: their strengths cannot be compared", _items(met[0]), _items(~met[0]))
    if not bool(beats.all()):
        never_beaten = _items((beats | ~beats.T).all(1))
        never_winning = _items((beats.T | ~beats).all(1))
        about = "no finite strengths: {} were never beaten by the others, {} never beat the others"
        raise OpenEnded(about, never_beaten, never_winning)


def _reachable(edges: Tensor) -> Tensor:
    """(N, N), True where a chain of edges, of any length, leads from i to j; every item reaches itself."""
    reached = edges | torch.eye(len(edges), dtype=torch.bool, device=edges.device)
    for _ in range(len(edges).bit_length()):
        reached = (reached.double() @ reached.double()) > 0
    return reached


def _items(chosen: Tensor) -> list[int]:
    return chosen.nonzero().flatten().tolist()


def _slope_and_information(scores: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """First derivative (N,) and negative second derivative (N, N) of the log-likelihood."""
    chance = torch.sigmoid(scores.unsqueeze(1) - scores.unsqueeze(0))
    met = counted + counted.T
    slope = (counted - met * chance).sum(1)
    weight = met * chance * chance.T
    return slope, torch.diag(weight.sum(1)) - weight


def _inverse_across_constants(information: Tensor) -> Tensor:
    """Pseudo-inverse: adding one number to all scores changes no likelihood, so that direction is left out."""
    size = len(information)
    scale = information.diagonal().mean()
    constants = torch.full_like(information, 1.0 / size)
    return torch.linalg.inv(information + scale * constants) - constants / scale


def _maximise(counted: Tensor) -> tuple[Tensor, Tensor]:
    """Newton's method, each step shortened so that it cannot overshoot (Sun and Tran-Dinh 2019, nu = 2)."""
    scores = torch.zeros_like(counted[0])
    for _ in range(MOST_ITERATIONS):
        slope, information = _slope_and_information(scores, counted)
        step = _inverse_across_constants(information) @ slope
        if slope @ step <= NEAR_ENOUGH**2:
            return scores + step, information
        span = step.max() - step.min()
        scores = scores + step * torch.log1p(span) / span
    raise ValueError(
        f"wins from {counted[counted > 0].min():g} to {counted.max():g} are too far apart to be placed in float64"
    )
