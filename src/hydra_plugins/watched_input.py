"""Tells Hydra what `${watched:…}` means, wherever it composes conf/: DVC does so in a process of its own.

Nothing of this project is imported here, for in that process another checkout may be the one that is installed.
"""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

FOLDER = "file://"  # may stand before a path


def watch(root: Path) -> None:
    """Makes `${watched:FILE}` known: the `path` beside it where such a file or folder lies beneath root, else FILE.

    It is what DVC watches for changes: a set on the hub lies nowhere, and DVC would call it a missing input.
    """

    def watched(file: str, *, _parent_: DictConfig) -> str:
        path = None if OmegaConf.is_missing(_parent_, "path") else _parent_.path
        return path if path and (root / path).exists() else file

    OmegaConf.register_new_resolver("watched", watched, replace=True)


class WatchedInput(SearchPathPlugin):
    """Adds nothing to the search path; from it comes the root beneath which inputs are looked for."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for source in search_path.get_path():
            conf = Path(source.path.removeprefix(FOLDER))
            if source.provider == "main" and conf.is_absolute():
                watch(conf.parent)
