"""What a sweep asks of the policies that its jobs make, and what it tells in the end.

python -m rlhf.evaluation.swept SWEEP [SWEEP ...] --output DIR     # several sweeps in one picture
"""

from pathlib import Path

from rlhf.evaluation.swept.examine import examine
from rlhf.evaluation.swept.held_against import check
from rlhf.runtime.sweeps.sweep import Reading


def report(root: Path, folder: Path) -> str:
    """Reads one sweep into its own folder; what is to be shown at its end."""
    from rlhf.evaluation.swept.report import report_on  # imports what draws, which a job has no need of

    return report_on(root, [folder], folder)


POLICIES = Reading(check, examine, report)
