"""Says what is wrong with a setting: its name, its value, what it must be, or the name that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from rlhf.config import Config

Values = dict[str, Any]
CUT = dict.fromkeys(
    ("top_k", "top_p", "min_p"),
    "it would sample from another policy than the one that is scored and trained, and the KL would come out negative",
)
SIMILAR = 0.75  # share of the letters that a misspelt name has in common with the one that was meant


def explain(problem: Values) -> str:
    """One of pydantic's complaints as `ppo.lr (nan) must be a finite number above 0`."""
    key = ".".join(str(part) for part in problem["loc"])
    match problem["type"]:
        case "value_error":
            return str(problem["ctx"]["error"])
        case "extra_forbidden":
            return unknown(key, known_settings())
        case "missing":
            return f"{key} is missing: it must be {requirement(schema_at(problem['loc']))}"
    return f"{key} ({shown(problem['input'])}) must be {requirement(schema_at(problem['loc']))}"


def unknown(key: str, known: Iterable[str]) -> str:
    """`ppo.kl_clt: no such setting; did you mean ppo.kl_ctl?`"""
    known, leaf = sorted(known), key.rpartition(".")[2]
    if leaf in CUT:
        return f"{key}: no such setting, and on purpose: {CUT[leaf]}"
    near = [name for name in known if name.rpartition(".")[2] == leaf]
    near = near or difflib.get_close_matches(key, known, n=1, cutoff=SIMILAR)
    return f"{key}: no such setting" + (f"; did you mean {' or '.join(near)}?" if near else "")


def shown(value: Any) -> str:
    """A value as YAML would have it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "a group of settings"
    return str(value)


def requirement(schema: Values) -> str:
    """What a JSON schema asks for, in words."""
    match schema:
        case {"enum": choices}:
            return f"one of {', '.join(map(str, choices))}"
        case {"anyOf": options}:
            return " or ".join(requirement(option) for option in options)
        case {"type": "array", "items": items}:
            return f"a list of at least {schema.get('minItems', 0)}, each {requirement(items)}"
    words = {
        "integer": "a whole number",
        "number": "a finite number",
        "boolean": "true or false",
        "string": "text",
        "object": "a group of settings",
    }
    return " ".join([words.get(schema.get("type", ""), "null"), *_bounds(schema)])


def _bounds(schema: Values) -> list[str]:
    words = {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{word} {schema[name]}" for name, word in words.items() if name in schema]
    return [" and ".join(bounds)] if bounds else []


@cache
def _schema() -> Values:
    return Config.model_json_schema()


def schema_at(location: Sequence[str | int]) -> Values:
    schema = _schema()
    for part in location:
        schema = schema.get("items", {}) if isinstance(part, int) else properties(schema).get(part, {})
        schema = _resolved(schema)
    return schema


def properties(schema: Values) -> Values:
    return _resolved(schema).get("properties", {})


def _resolved(schema: Values) -> Values:
    """What a reference points to; of a group that may be null, the group."""
    schema = next((option for option in schema.get("anyOf", []) if "$ref" in option), schema)
    reference = schema.get("$ref", "")
    return _schema()["$defs"][reference.rpartition("/")[2]] if reference else schema


def known_settings() -> list[str]:
    """Every setting and every section by its dotted name."""

    def names(schema: Values, prefix: str) -> Iterator[str]:
        for key, below in properties(schema).items():
            yield prefix + key
            yield from names(below, f"{prefix}{key}.")

    return list(names(_schema(), ""))
