"""sweep.csv: a row a job, with its settings, what became of it, and its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlhf.runtime.outputs import numbers, write_rows
from rlhf.runtime.sweeps.ledger import DONE, jobs_of

TABLE = "sweep.csv"
EXAM = "evaluation"  # the folder of a job that holds what its policy answered to the exam, and its figures


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The figures are those of the exam where there was one, else those of the stage itself."""
    rows = []
    for place, job in jobs_of(folder):
        found = [file for file in (place / EXAM / "metrics.json", place / "metrics.json") if file.is_file()]
        figures = numbers(json.loads(found[0].read_text(encoding="utf-8"))) if found and job["status"] == DONE else {}
        times = {key: job[key] for key in ("seconds", "cpu_seconds") if key in job}
        rows.append(
            {"job": int(place.name), "status": job["status"] or "not begun", **job["settings"]}
            | figures
            | times
            | {"message": job.get("message", "")}
        )
    return rows


def write_table(folder: Path) -> None:
    write_rows(folder / TABLE, rows_of(folder))
