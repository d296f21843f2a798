"""Every model against every other, on answers drawn independently of each other (SPEC eq. 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rlhf.evaluation.statistics import Floats, wins
from rlhf.maths.bradley_terry import OpenEnded, strengths


def strength_figures(judged: Mapping[str, Floats]) -> dict[str, Any]:
    """Bradley-Terry strengths of models from the judge's (N,) scores of one answer each to N prompts: log odds, of sum 0.

    The answers to a prompt meet in all pairs, and these results are not independent: standard errors are those of
    whole prompts (the sandwich of Liang and Zeger 1986). Where somebody never wins or never loses there is no finite
    estimate, and `open_ended` says of whom.
    """
    answers = np.stack(list(judged.values()))
    results = wins(answers[:, None], answers[None]).transpose(2, 0, 1)  # (N, M, M): 1, ½ or 0
    won, tied = (torch.from_numpy((results == value).sum(0).astype(np.float64)) for value in (1.0, 0.5))
    try:
        found, _ = strengths(won, tied.fill_diagonal_(0))
    except OpenEnded as reason:
        models = list(judged)
        return {"open_ended": reason.about.format(*(", ".join(models[i] for i in group) for group in reason.groups))}
    errors = _errors_over_prompts(results, found.numpy())
    pairs = zip(judged, found.tolist(), errors.tolist(), strict=True)
    return {model: {"strength": value, "standard_error": error} for model, value, error in pairs}


def _errors_over_prompts(results: Floats, found: Floats) -> Floats:
    """(M,) roots of the diagonal of B (Σ u uᵀ) B: u a prompt's slope of the log-likelihood, B the inverse curvature."""
    chance = 1 / (1 + np.exp(found[None] - found[:, None]))
    slopes = (results - chance).sum(2)  # (N, M); a model's ½ against itself adds nothing
    weight = len(results) * chance * (1 - chance)
    bread = np.linalg.pinv(np.diag(weight.sum(1)) - weight)
    return np.sqrt(np.diag(bread @ (slopes.T @ slopes) @ bread))
