"""Policies on their way: how PPO's snapshots and best-of-n go with KL, and whether their laws turn (Gao et al. 2022)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.errors import UserError
from rlhf.evaluation.answering import answer
from rlhf.evaluation.answers import SAMPLED, Contestant
from rlhf.evaluation.contest import sample_seed
from rlhf.evaluation.exam import Exam, Judges
from rlhf.evaluation.figures import Yardstick, figures_of
from rlhf.evaluation.overoptimisation import Form, Law, fit
from rlhf.evaluation.points import BEST_OF_N, Marks, Point
from rlhf.evaluation.written import marks_of
from rlhf.models.policy import PreTrainedModel

SNAPSHOTS, STEP = "snapshots", "step"
FORMS: dict[str, Form] = {BEST_OF_N: "best_of_n", SNAPSHOTS: "rl"}


@dataclass(frozen=True, slots=True)
class Way:
    """PPO's policies as it learnt: what its snapshots answered, and the step of the policy that it ended with."""

    snapshots: Sequence[Contestant]
    last_step: int


def snapshots_in(training: Path) -> dict[int, Path]:
    """The policies that PPO kept, by step, without the last one where that is the policy it ended with."""
    found = {int(place.name.removeprefix("step_")): place for place in sorted((training / SNAPSHOTS).glob("step_*"))}
    last = last_step(training)
    return {step: place for step, place in found.items() if step != last}


def last_step(training: Path) -> int:
    """The step of the policy that PPO ended with."""
    return int(json.loads((training / "metrics.json").read_text(encoding="utf-8"))["step"])


def on_the_way(
    snapshots: Mapping[int, Callable[[], PreTrainedModel]], exam: Exam, judges: Judges, yardstick: Yardstick, seed: int
) -> Iterator[Contestant]:
    """Every snapshot's sampled answers, with the random numbers of the other models."""
    for step, load in snapshots.items():
        said = answer(load(), exam, judges, exam.temperature, sample_seed(seed, 0))
        yield Contestant(f"ppo_{STEP}_{step}", SAMPLED, said, figures_of(said, None, yardstick))


def snapshot_points(way: Way, seed: int) -> list[Point]:
    return [
        Point(SNAPSHOTS, {STEP: contestant.model.rpartition("_")[2]}, {seed: marks_of(contestant.answers)})
        for contestant in way.snapshots
    ]


def path_points(points: Sequence[Point], way: Way) -> list[Point]:
    """Best-of-n, and PPO's snapshots with the policy that it ended with."""
    paths = [point for point in points if point.method in FORMS]
    return paths + [Point(SNAPSHOTS, {STEP: str(way.last_step)}, point.runs) for point in points if point.method == "ppo"]


def laws_along(points: Sequence[Point], sft: Marks, samples: int, seed: int) -> tuple[dict[str, Law], dict[str, Any]]:
    """The law of each path among the points, and what metrics.json says of it; where there is no fit, why."""
    laws, said = {}, {}
    for method, form in FORMS.items():
        along = [point for point in points if point.method == method]
        if not along:  # as best of n, where n goes up to 1
            continue
        gains = np.array([point.over_seeds("judged") - sft.judged for point in along])
        kls = np.array([point.over_seeds("kl") for point in along])
        try:
            laws[method] = fit(form, kls[:, 0, 0] if method == BEST_OF_N else kls, gains, samples, seed)
            said[method] = _without_none(asdict(laws[method]))
        except UserError as reason:
            said[method] = {"statement": str(reason)}
    return laws, said


def _without_none(entries: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entries.items() if value is not None}
