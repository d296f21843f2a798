"""Checks the command line's overrides against what there is to override, before Hydra composes anything."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.errors import UserError
from rlhf.runtime.messages import known_settings, schema_at, shown, unknown

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def check_names(conf: Path, overrides: Sequence[str]) -> None:
    """UserError for an override that names no setting, or chooses what its group does not offer."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    with hydra_messages():
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    problems = [problem for override in parsed for problem in _problems(conf, override)]
    if problems:
        raise UserError("\n".join(problems))


def _problems(conf: Path, override: Override) -> Iterator[str]:
    key = override.key_or_group
    if key.partition(".")[0].partition("/")[0] == "hydra":
        return
    groups = sorted(path.name for path in conf.iterdir() if path.is_dir())
    if key in groups:
        yield from _wrong_choices(conf / key, override)
        return
    if not schema_at(key.split(".")):
        yield unknown(key, [*known_settings(), *groups])


def _wrong_choices(group: Path, override: Override) -> Iterator[str]:
    choices = sorted(path.stem for path in group.glob("*.yaml"))
    values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
    for value in (shown(value) for value in values if not isinstance(value, list) and value not in choices):
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f"did you mean {group.name}={near[0]}?" if near else f"there are {', '.join(choices)}"
        yield f"{group.name}={value}: no such choice; {hint}"


@contextlib.contextmanager
def hydra_messages() -> Iterator[None]:
    """Turns what Hydra and OmegaConf raise into a UserError with their words on one line."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip() and "hydra.cc" not in line]
        raise UserError(" ".join(lines)) from error
