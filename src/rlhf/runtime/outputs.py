"""What every stage leaves beside its product: metrics.json and curve.csv, the same bytes for the same numbers."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """ValueError for NaN and infinity: a metric that is no number must not pass for one."""
    path.write_text(json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_curve(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows of a loop, `step` before all else."""
    write_rows(path, rows, ["step"])


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], first: Sequence[str] = ()) -> None:
    """Columns in the order in which they were first seen, after those named; blank where a row lacks a number."""
    columns = list(dict.fromkeys([*first, *(key for row in rows for key in row)]))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int):
        return str(int(value))
    return repr(float(value)) if math.isfinite(value) else ""


def numbers(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a nested dict under names with slashes: {"a": {"b": 1}} as {"a/b": 1.0}."""
    found: dict[str, float] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            found[f"{prefix}{key}"] = float(value)
    return found
