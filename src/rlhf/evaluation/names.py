"""What models, points and figures are called where people read of them."""

from __future__ import annotations

from collections.abc import Mapping

from rlhf.evaluation.points import BEST_OF_N, Point
from rlhf.evaluation.statistics import Interval

NAMES = {"sft": "SFT", "ppo": "PPO", "dpo": "DPO"}
MISSING = "–"


def shown_name(model: str) -> str:
    """`best_of_4` as `best of 4`, `sft` as `SFT`."""
    return NAMES.get(model, model.replace("_", " "))


def shown_method(method: str) -> str:
    """`best_of_n` as `best of n`; the snapshots are those of PPO."""
    return "PPO, on its way" if method == "snapshots" else shown_name(method)


def shown_point(point: Point) -> str:
    """`PPO, kl_ctl 0.1, clip_range 0.2`; `best of 4`."""
    if point.method == BEST_OF_N:
        return f"best of {point.setting['n']}"
    return ", ".join([shown_method(point.method), shown_setting(point.setting)]).removesuffix(", ")


def shown_setting(setting: Mapping[str, str]) -> str:
    """`kl_ctl 0.1, clip_range 0.2`: without their sections, but where that leaves two with one name."""
    short = {key: key.rpartition(".")[2] for key in setting}
    names = [name if list(short.values()).count(name) == 1 else key for key, name in short.items()]
    return ", ".join(f"{name} {value}" for name, value in zip(names, setting.values(), strict=True))


def shown_interval(interval: Interval) -> str:
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
