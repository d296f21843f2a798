"""Tells Hydra what `${watched:…}` means, wherever it composes conf/: DVC does so in a process of its own."""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from rlhf.runtime.settings import watch

FOLDER = "file://"  # may stand before a path


class WatchedInput(SearchPathPlugin):
    """Adds nothing to the search path; from it comes the root beneath which inputs are looked for."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for source in search_path.get_path():
            conf = Path(source.path.removeprefix(FOLDER))
            if source.provider == "main" and conf.is_absolute():
                watch(conf.parent)
