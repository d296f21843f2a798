"""Checks the command line's overrides against what there is to override, before Hydra composes anything."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rlhf.errors import UserError
from rlhf.runtime.messages import known_settings, requirement, schema_at, shown, unknown

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


BEYOND_ASCII = re.compile(r"[\w-]*[^\x00-\x7f][\w-]*")


def check_options(arguments: Sequence[str]) -> None:
    """UserError for what begins with a dash and is no option of Hydra's, which would end with its usage and 2."""
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; settings have no dashes, as in seed=1 (--help lists the options)")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    parser.parse_args(arguments)


def check_names(conf: Path, overrides: Sequence[str]) -> None:
    """UserError for an override that names no setting, or chooses what its group does not offer."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    problems: list[str] = []
    for text in overrides:
        with hydra_messages(_hint_for(text)):
            override = parser.parse_override(text)
        problems += _problems(conf, override)
    if problems:
        raise UserError("\n".join(problems))


def _hint_for(override: str) -> str:
    """Hydra's grammar knows letters beyond ASCII in quotes only."""
    if override.isascii() or "'" in override or '"' in override:
        return ""
    quoted = BEYOND_ASCII.sub(r"'\g<0>'", override)
    return f'; put it in quotes: "{quoted}"'


def _problems(conf: Path, override: Override) -> Iterator[str]:
    from hydra.core.override_parser.types import ValueType

    key = override.key_or_group
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        yield f"{override.input_line}: name the values themselves, as in {key}=A,B"
        return
    if key.partition(".")[0].partition("/")[0] == "hydra":
        return
    groups = sorted(path.name for path in conf.iterdir() if path.is_dir())
    if key in groups:
        yield from _wrong_choices(conf / key, override)
        return
    schema = schema_at(key.split("."))
    if not schema:
        yield unknown(key, [*known_settings(), *groups])
    elif "enum" in schema and not override.is_delete():
        # here, for other settings may be looked up by it, and composing would stumble over those
        wrong = [value for value in map(shown, _values(override)) if value not in map(str, schema["enum"])]
        yield from (f"{key} ({value}) must be {requirement(schema)}" for value in wrong)


def _values(override: Override) -> list[Any]:
    """One, or those of a sweep."""
    return list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]


def _wrong_choices(group: Path, override: Override) -> Iterator[str]:
    choices = sorted(path.stem for path in group.glob("*.yaml"))
    values = _values(override)
    for value in values:
        if isinstance(value, dict):
            yield f"{group.name} is a group of settings: change them one by one, as in {_first_setting(group.name, value)}"
    names = (shown(value) for value in values if not isinstance(value, dict | list))
    for value in (name for name in names if name not in choices):
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f"did you mean {group.name}={near[0]}?" if near else f"there are {', '.join(choices)}"
        yield f"{group.name}={value}: no such choice; {hint}"


def _first_setting(key: str, value: Any) -> str:
    while isinstance(value, dict) and value:
        name, value = next(iter(value.items()))
        key = f"{key}.{name}"
    return f"{key}.NAME=VALUE" if value == {} else f"{key}={shown(value)}"


@contextlib.contextmanager
def hydra_messages(hint: str = "") -> Iterator[None]:
    """Turns what Hydra and OmegaConf raise into a UserError with their words on one line, and a hint behind them."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip() and "hydra.cc" not in line]
        raise UserError(" ".join(lines) + hint) from error
