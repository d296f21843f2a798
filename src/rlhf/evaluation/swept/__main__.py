"""Reads several sweeps side by side, of one stage or of both: python -m rlhf.evaluation.swept SWEEP … --output DIR"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rlhf.errors import UserError
from rlhf.evaluation.swept.report import report_on
from rlhf.runtime.processes import attempt


def main() -> int:
    parser = argparse.ArgumentParser("python -m rlhf.evaluation.swept", description=__doc__)
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP", help="folders, as in sweeps/ppo/<time>")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the table and the pictures go")
    asked = parser.parse_args()
    if asked.output.exists():
        raise UserError(f"--output {asked.output} is there already: name a new folder")
    said = report_on(Path(), asked.sweeps, asked.output)
    if not said:
        raise UserError(f"no job of {', '.join(map(str, asked.sweeps))} is done: there is nothing to read")
    print(said)
    return 0


if __name__ == "__main__":
    sys.exit(attempt("swept", main))
