"""sweep.csv: a row a job, with its settings, what became of it, and its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlhf.runtime.outputs import numbers, write_rows
from rlhf.runtime.sweeps.ledger import DONE, EXAM, SPENT, SWEEP, jobs_of, read

TABLE = "sweep.csv"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """A job's figures are those of its exam, and behind them, by names like `ppo/score`, those of its training."""
    stage = (read(folder / SWEEP) or {}).get("stage", "")
    rows = []
    for place, job in jobs_of(folder):
        files = ((place / EXAM / "metrics.json", ""), (place / "metrics.json", f"{stage}/"))
        figures: dict[str, float] = {}
        for file, prefix in files if job["status"] == DONE else ():
            figures |= numbers(json.loads(file.read_text(encoding="utf-8")), prefix) if file.is_file() else {}
        times = {key: job[key] for key in SPENT if key in job}
        rows.append(
            {"job": int(place.name), "status": job["status"] or "not begun", **job["settings"]}
            | figures
            | times
            | {"message": job.get("message", "")}
        )
    return rows


def write_table(folder: Path) -> None:
    write_rows(folder / TABLE, rows_of(folder))
