"""What a sweep asks of the policies that its jobs make, and what it tells in the end.

python -m rlhf.evaluation.swept SWEEP [SWEEP ...] --output DIR     # several sweeps in one picture
"""

from pathlib import Path

from rlhf.evaluation.swept.held_against import check
from rlhf.runtime.run import Run
from rlhf.runtime.sweeps.sweep import Reading


def examine(run: Run, name: str) -> None:
    """Lets the policy of one job take the exam."""
    from rlhf.evaluation.swept import examination  # imports models, which who launches jobs has no need of

    examination.examine(run, name)


def report(root: Path, folder: Path) -> str:
    """Reads one sweep into its own folder; what is to be shown at its end."""
    from rlhf.evaluation.swept.report import report_on  # imports what draws, which a job has no need of

    return report_on(root, [folder], folder)


POLICIES = Reading(check, examine, report)
