"""What each sweep's policies were given to learn from: methods are compared at budgets that are not equal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf.evaluation.swept.read import Swept
from rlhf.runtime.sweeps.ledger import Book

VARIES = "various"
SCORED = {
    "reward_model": "scored by a reward model that learnt the {rankings:,} rankings",
    "gold": "scored by the gold rater itself",
}


def budgets_of(root: Path, sweeps: Sequence[tuple[Book, Sequence[Swept]]]) -> list[str]:
    """A line a sweep, by its book and its points."""
    label = json.loads((root / "artifacts/label/metrics.json").read_text(encoding="utf-8"))
    counts = {"rankings": label["rankings"]["train"], "pairs": label["pairs"]["train"]}
    told = {"ppo": _ppo, "dpo": _dpo}
    lines = [told[book["stage"]](book["settings"], points, counts) for book, points in sweeps if points]
    about = "Budgets are not equal. PPO and DPO in artifacts were trained as dvc.lock says."
    of_best = "- Best of n: nothing is trained; n responses and n scores for every answer it gives."
    return [about, "", *dict.fromkeys([*lines, of_best])]


def _ppo(settings: Mapping[str, Any], points: Sequence[Swept], counts: Mapping[str, int]) -> str:
    steps, responses = _range(points), settings.get("ppo.responses_per_step", VARIES)
    sources = str(settings.get("ppo.reward_from", VARIES)).split(", ")
    scored = " or ".join(SCORED.get(source, source).format(**counts) for source in sources)
    return f"- PPO: {steps} rollouts of {responses} responses of its own, {scored}."


def _dpo(settings: Mapping[str, Any], points: Sequence[Swept], counts: Mapping[str, int]) -> str:
    epochs, rounds = settings.get("dpo.epochs", VARIES), settings.get("dpo.rounds", VARIES)
    pairs = f"the {counts['pairs']:,} pairs of the {counts['rankings']:,} rankings"
    about = f"dpo.epochs {epochs}, dpo.rounds {rounds}: from the second on its own answers"
    return f"- DPO: {_range(points)} steps on {pairs} ({about})."


def _range(points: Sequence[Swept]) -> str:
    """How many steps they took."""
    steps = [count for one in points for count in one.steps.values()]
    return str(min(steps)) if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"
