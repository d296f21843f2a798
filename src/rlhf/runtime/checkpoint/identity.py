"""What a run's result follows from, as one name; and what moves its rounding alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.runtime.hashes import md5_of, md5_of_json
from rlhf.runtime.pipeline import Declared

ROUNDING = (
    "engine.name",
    "engine.processes",
    "engine.attention",
    "engine.gradient_checkpointing",
    "engine.threads",
    "engine.tokens_per_micro_batch",
    "engine.responses_at_once",
)
NAMED = re.compile(r"\$\{([\w.]+)\}")  # a setting in a path of dvc.yaml


def code_of(root: Path, declared: Declared) -> dict[str, str]:
    """The hashes of the stage's own code, to be asked for before it is imported: who edits it meanwhile has another run."""
    return {dep: md5_of(root / dep) for dep in declared.deps or () if dep.endswith(".py") and (root / dep).exists()}


@dataclass(frozen=True, slots=True)
class Origin:
    """Of a run of a stage. values: the settings by dotted names. machine: device, versions and the like. code: `code_of`."""

    root: Path
    stage: str
    declared: Declared
    values: Mapping[str, Any]
    machine: Mapping[str, str]
    code: Mapping[str, str]

    @property
    def is_known(self) -> bool:
        """Whether dvc.yaml says what the stage depends on."""
        return self.declared.deps is not None and self.declared.params is not None

    def name(self) -> str:
        """The stage, and a hash of its settings, code and inputs: every file is read."""
        deps = [dep for dep in self.declared.deps or () if dep not in self.code]
        inputs = [NAMED.sub(lambda match: str(self.values[match[1]]), dep) for dep in deps]
        known = dict(self.code) | {path: md5_of(self.root / path) for path in inputs if (self.root / path).exists()}
        settings = {name: value for name, value in self._used().items() if name not in ROUNDING}
        return f"{self.stage}-{md5_of_json([self.stage, settings, known])[:16]}"

    def how(self) -> dict[str, Any]:
        """What may differ between two parts of one run."""
        used = self._used()
        settings = {name: used[name] for name in ROUNDING if name in used}
        return settings | {name: value for name, value in self.machine.items() if f"engine.{name}" not in settings}

    def _used(self) -> dict[str, Any]:
        params = self.declared.params or ()
        return {name: x for name, x in self.values.items() if any(f"{name}.".startswith(f"{param}.") for param in params)}
