"""Points side by side: what each bought at which KL, which no other beats, and how far each is behind the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from rlhf.evaluation.answers import SFT, Answers
from rlhf.evaluation.frontier import best_of_n, pareto
from rlhf.evaluation.length_control import length_controlled_win_rate
from rlhf.evaluation.measures import best_of_n_kl_bound
from rlhf.evaluation.points import BEST_OF_N, Marks, Point
from rlhf.evaluation.statistics import LEVEL, Floats, Interval, over_seeds, paired_difference, wins
from rlhf.evaluation.written import Samples, marks_in

N = "n"


@dataclass(frozen=True, slots=True)
class Standing:
    """A point's figures. Intervals are over prompts and, where a point has several, seeds.

    behind: gold score (or the reward model's, where it judges) less that of the best point, on the same prompts, in
    intervals that hold for all pairs of points at once; None of the best itself.
    """

    point: Point
    judged: Interval
    reward: Interval
    kl: Interval
    win_rate: Interval  # against independent answers of SFT, a tie as half
    win_rate_at_equal_length: float | None  # mean over runs; None of best of n, which is no answer but a mean of many
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
    judged = [point.over_seeds("judged") for point in points]
    means = [float(values.mean()) for values in judged]
    best = int(np.argmax(means))
    level = 1 - (1 - LEVEL) / max(len(points) * (len(points) - 1) / 2, 1)  # all pairs: the data chose the best
    kls = [over_seeds(point.over_seeds("kl"), samples, seed) for point in points]
    won = [chances_of(point, opponent) for point in points]
    kept = pareto([kl.mean for kl in kls], means)
    return [
        Standing(
            point=point,
            judged=over_seeds(values, samples, seed),
            reward=over_seeds(point.over_seeds("reward"), samples, seed),
            kl=kls[i],
            win_rate=over_seeds(won[i], samples, seed),
            win_rate_at_equal_length=_at_equal_length(point, won[i], opponent),
            tokens=float(point.over_seeds("tokens").mean()),
            ended=float(point.over_seeds("ended").mean()),
            pareto=i in kept,
            behind=None if i == best else paired_difference(values, judged[best], level),
        )
        for i, (point, values) in enumerate(zip(points, judged, strict=True))
    ]


def chances_of(point: Point, opponent: Marks) -> Floats:
    """(S, N) how a point's answers fare against SFT's independent ones: 1, ½ or 0, of best of n the chance."""
    assert opponent.rivals is not None
    known = [marks.won for marks in point.runs.values() if marks.won is not None]
    return np.stack(known) if known else wins(point.over_seeds("judged"), opponent.rivals)


def _at_equal_length(point: Point, won: Floats, opponent: Marks) -> float | None:
    if point.method == BEST_OF_N:
        return None
    assert opponent.rival_tokens is not None
    lengths = point.over_seeds("tokens") - opponent.rival_tokens
    return fmean(length_controlled_win_rate(*run).mean for run in zip(won, lengths, strict=True))


def known_points(
    answers: Mapping[tuple[str, str], Answers], pool: Sequence[Samples], seed: int, where: Mapping[str, str]
) -> list[Point]:
    """What a repository's own evaluation has: SFT, best-of-n for n = 2, 4, 8, …, PPO and DPO.

    where: the setting of PPO and DPO, to tell them from others of their kind.
    """
    policies = [Point(model, where, {seed: marks_in(answers, model)}) for model in ("ppo", "dpo")]
    sft = marks_in(answers, SFT)
    assert sft.rivals is not None
    return [Point(SFT, runs={seed: sft}), *best_of_n_points(pool, sft.rivals, seed), *policies]


def best_of_n_points(pool: Sequence[Samples], rivals: Floats, seed: int) -> list[Point]:
    """Best-of-n for n = 2, 4, 8, … as far as the pool of M answers goes; each is what n of the M give on average.

    rivals: (N,) the scores that a win is counted against.
    """
    rewards = np.array([one.reward_score for one in pool])
    size = rewards.shape[1]

    def marks(n: int) -> Marks:
        judged, tokens, ended = (np.array([getattr(p, name) for p in pool], float) for name in ("judged", "tokens", "ended"))
        won = wins(judged, rivals[:, None])
        means = [best_of_n(rewards, values, n) for values in (judged, rewards, tokens, ended, won)]
        bound = np.full(len(rewards), best_of_n_kl_bound(n))
        return Marks(judged=means[0], reward=means[1], kl=bound, tokens=means[2], ended=means[3], won=means[4])

    return [Point(BEST_OF_N, {N: str(2**k)}, {seed: marks(2**k)}) for k in range(1, size.bit_length()) if 2**k <= size]


def row(standing: Standing) -> dict[str, Any]:
    """A line of frontier.csv: intervals as name, name_low and name_high."""
    point = standing.point
    flat: dict[str, float] = {}
    for name in ("judged", "reward", "kl", "win_rate", "behind"):
        interval: Interval | None = getattr(standing, name)
        ends = {} if interval is None else {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        flat |= ends
    setting = ", ".join(f"{key}={value}" for key, value in point.setting.items())
    about = {"method": point.method, "setting": setting, "seeds": len(point.runs)}
    rest: dict[str, Any] = (
        {} if standing.win_rate_at_equal_length is None else {"win_rate_at_equal_length": standing.win_rate_at_equal_length}
    )
    rest |= {"tokens": standing.tokens, "ended": standing.ended, "pareto": int(standing.pareto)}
    return about | flat | rest | {"ties_the_best": int(standing.ties_the_best)}
