"""Settings of data for the tests: all of a file, under our own names, unless a test says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf.config import Columns, Data
from rlhf.data.columns import NAMES


def settings(source: str, path: Path | str, **changes: Any) -> Data:
    columns = Columns(**(dict.fromkeys(NAMES) | changes.pop("columns", {})))
    sizes = {"documents": 0, "demonstrations": 0, "prompts": 0}
    hub = {
        "language": "en",
        "languages": None,
        "stories": None,
        "revision": None,
        "pattern": None,
        "file": "conf/data/files.yaml",
    }
    rater = {"rater": "conf/prepare/default.yaml"}
    given = {"columns": columns, "max_response_tokens": 40, "margin_per_score": 0.0} | sizes | hub | rater | changes
    return Data(name="x", source=source, path=str(path), **given)  # type: ignore[arg-type]
