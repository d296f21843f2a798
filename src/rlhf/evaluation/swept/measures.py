"""Whether what can be measured without the judge would have put the policies of sweeps in the judge's order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlhf.evaluation.statistics import spearman
from rlhf.runtime.sweeps.ledger import DONE
from rlhf.runtime.sweeps.table import rows_of

MEASURES = {
    "rouge_l": ("ROUGE-L with demonstrations", 1),
    "nll_demonstrations": ("likelihood of demonstrations", -1),
    "reward_score": ("the reward model's score", 1),
}
FEWEST = 5  # policies, of which an order says anything


def rank_agreement(sweeps: Sequence[Path]) -> list[str]:
    """Spearman's rank correlation of each measure with the gold score, over all policies; nothing where these are few."""
    rows = [row for sweep in sweeps for row in rows_of(sweep) if row["status"] == DONE]
    columns = ("gold_score", *MEASURES)
    if not all(column in row for row in rows for column in columns):
        return []
    figures = np.array(sorted({tuple(row[column] for column in columns) for row in rows}))  # sweeps may share policies
    if len(figures) < FEWEST:
        return []
    gold, *measured = figures.T
    told = [
        f"{name} {spearman(sign * values, gold):+.2f}"
        for (name, sign), values in zip(MEASURES.values(), measured, strict=True)
    ]
    about = "policies of one setting are no independent cases, hence no intervals"
    over = f"Rank correlation (Spearman) with the gold score over {len(figures)} policies"
    return [f"{over}: {', '.join(told)} ({about}).", ""]
