"""The md5 of a file or folder, as DVC has it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def md5_of(path: Path) -> str:
    """Of a file's bytes; of a folder, that of the sorted list of its files and their md5s, with `.dir` behind it."""
    if path.is_dir():
        files = {file.relative_to(path).as_posix(): md5_of(file) for file in path.rglob("*") if file.is_file()}
        listed = [{"md5": files[name], "relpath": name} for name in sorted(files)]
        return md5_of_json(listed) + ".dir"
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def md5_of_json(value: Any) -> str:
    """Of its text as JSON, with sorted keys."""
    return hashlib.md5(json.dumps(value, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
