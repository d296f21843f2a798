"""What dvc.yaml says that a stage depends on, and the means to hold it to its word.

A stage that reads what it does not declare goes stale without anybody noticing. So it sees nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config import Config, Section


@dataclass(frozen=True)
class Declared:
    """The deps and params of a stage in dvc.yaml; None where dvc.yaml does not know it, and it may read everything."""

    deps: tuple[str, ...] | None = None
    params: tuple[str, ...] | None = None

    def covers(self, path: str) -> bool:
        """Whether a path (from the root) is a dep, or inside one."""
        return self.deps is None or any(f"{path}/".startswith(f"{dep}/") for dep in self.deps)


def declared(root: Path, stage: str) -> Declared:
    stages = read_yaml(root / "dvc.yaml").get("stages") or {}
    if stage not in stages:
        return Declared()
    return Declared(tuple(stages[stage].get("deps", [])), tuple(stages[stage].get("params", [])))


def read_yaml(path: Path) -> dict[str, Any]:
    """What dvc.yaml or dvc.lock says; nothing where it is not there. By libyaml, for a lock takes Python half a second."""
    import yaml

    if not path.is_file():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a wheel without libyaml has Python's alone
    with path.open(encoding="utf-8") as file:  # the file itself, for its name is in what libyaml says of a fault
        return loader(file).get_single_data() or {}


def visible(config: Config, params: Sequence[str] | None) -> Config:
    """The settings with the declared params alone, by dotted names; reading another raises AttributeError."""
    if params is None:
        return config
    return _only(config, [tuple(param.split(".")) for param in params])


def _only(section: Any, paths: list[tuple[str, ...]]) -> Any:
    if () in paths or not isinstance(section, Section):
        return section
    below: dict[str, list[tuple[str, ...]]] = {}
    for head, *rest in paths:
        below.setdefault(head, []).append(tuple(rest))
    kind: Any = type(type(section).__name__, (_Hidden, type(section)), {"__module__": __name__})
    return kind.model_construct(**{name: _only(getattr(section, name), rests) for name, rests in below.items()})


class _Hidden:
    def __getattr__(self, name: str) -> Any:
        what = f"{type(self).__name__}.{name}"
        raise AttributeError(f"{what} is hidden: a stage sees only the settings that its params in dvc.yaml name")
