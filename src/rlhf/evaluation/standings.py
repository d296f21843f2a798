"""Points side by side: what each bought at which KL, which no other beats, and how far each is behind the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf.evaluation.answers import Answers
from rlhf.evaluation.contest import SFT
from rlhf.evaluation.frontier import best_of_n, pareto
from rlhf.evaluation.length_control import length_controlled_win_rate
from rlhf.evaluation.measures import best_of_n_kl_bound
from rlhf.evaluation.points import BEST_OF_N, Marks, Point
from rlhf.evaluation.statistics import LEVEL, Interval, bootstrap_over_seeds, paired_difference, wins
from rlhf.evaluation.written import Samples, marks_in

N = "n"


@dataclass(frozen=True, slots=True)
class Standing:
    """A point's figures. Intervals are over prompts and, where a point has several, seeds.

    behind: gold score (or the reward model's, where it judges) less that of the best point, on the same prompts, in
    intervals that hold for all points at once; None of the best itself.
    """

    point: Point
    judged: Interval
    reward: Interval
    kl: Interval
    win_rate: Interval  # against independent answers of SFT, a tie as half
    win_rate_at_equal_length: Interval  # of several runs, each prompt counts with their mean
    tokens: float
    ended: float
    pareto: bool
    behind: Interval | None

    @property
    def ties_the_best(self) -> bool:
        """Whether these data cannot tell it from the best point."""
        return self.behind is None or self.behind.low <= 0 <= self.behind.high


def standings(points: Sequence[Point], opponent: Marks, samples: int, seed: int) -> list[Standing]:
    """The points in the order given; `opponent` are SFT's answers that a win is counted against, its `rivals`."""
    assert opponent.rivals is not None
    assert opponent.rival_tokens is not None
    judged = [point.over_seeds("judged") for point in points]
    means = [float(values.mean()) for values in judged]
    best = int(np.argmax(means))
    level = 1 - (1 - LEVEL) / max(len(points) - 1, 1)
    kls = [bootstrap_over_seeds(point.over_seeds("kl"), samples, seed) for point in points]
    won = [wins(values, opponent.rivals) for values in judged]
    kept = pareto([kl.mean for kl in kls], means)
    return [
        Standing(
            point=point,
            judged=bootstrap_over_seeds(values, samples, seed),
            reward=bootstrap_over_seeds(point.over_seeds("reward"), samples, seed),
            kl=kls[i],
            win_rate=bootstrap_over_seeds(won[i], samples, seed),
            win_rate_at_equal_length=length_controlled_win_rate(
                won[i].mean(0), point.over_seeds("tokens").mean(0) - opponent.rival_tokens
            ),
            tokens=float(point.over_seeds("tokens").mean()),
            ended=float(point.over_seeds("ended").mean()),
            pareto=i in kept,
            behind=None if i == best else paired_difference(values, judged[best], samples, seed, level),
        )
        for i, (point, values) in enumerate(zip(points, judged, strict=True))
    ]


def known_points(
    answers: Mapping[tuple[str, str], Answers], pool: Sequence[Samples], seed: int, where: Mapping[str, str]
) -> list[Point]:
    """What a repository's own evaluation has: SFT, best-of-n for n = 2, 4, 8, …, PPO and DPO.

    where: the setting of PPO and DPO, to tell them from others of their kind.
    """
    policies = [Point(model, where, {seed: marks_in(answers, model)}) for model in ("ppo", "dpo")]
    return [Point(SFT, runs={seed: marks_in(answers, SFT)}), *best_of_n_points(pool, seed), *policies]


def best_of_n_points(pool: Sequence[Samples], seed: int) -> list[Point]:
    """Best-of-n for n = 2, 4, 8, … as far as the pool of M answers goes; each is what n of the M give on average."""
    rewards = np.array([one.reward_score for one in pool])
    size = rewards.shape[1]

    def marks(n: int) -> Marks:
        judged, tokens, ended = (np.array([getattr(p, name) for p in pool], float) for name in ("judged", "tokens", "ended"))
        expected = [best_of_n(rewards, values, n) for values in (judged, rewards, tokens, ended)]
        bound = np.full(len(rewards), best_of_n_kl_bound(n))
        return Marks(judged=expected[0], reward=expected[1], kl=bound, tokens=expected[2], ended=expected[3])

    return [Point(BEST_OF_N, {N: str(2**k)}, {seed: marks(2**k)}) for k in range(1, size.bit_length()) if 2**k <= size]


def row(standing: Standing) -> dict[str, Any]:
    """A line of frontier.csv: intervals as name, name_low and name_high."""
    point = standing.point
    flat: dict[str, float] = {}
    for name in ("judged", "reward", "kl", "win_rate", "win_rate_at_equal_length", "behind"):
        interval: Interval | None = getattr(standing, name)
        ends = {} if interval is None else {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        flat |= ends
    setting = ", ".join(f"{key}={value}" for key, value in point.setting.items())
    about = {"method": point.method, "setting": setting, "seeds": len(point.runs)}
    rest = {"tokens": standing.tokens, "ended": standing.ended, "pareto": int(standing.pareto)}
    return about | flat | rest | {"ties_the_best": int(standing.ties_the_best)}
