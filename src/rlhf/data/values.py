"""The values of a row by their type; a complaint names the place and the column."""

from __future__ import annotations

import math
from typing import Any

from rlhf.data.files import shown
from rlhf.errors import UserError

FLAGS = {"true": True, "false": False}


def read_text(place: str, column: str, value: Any) -> str:
    """A field that must be text. UserError names the place and the column."""
    if value is None:
        raise UserError(f"{place}: field '{column}' is null")
    if not isinstance(value, str):
        raise UserError(f"{place}: field '{column}' must be text, not {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = value[error.start].encode(errors="backslashreplace").decode()
        raise UserError(f"{place}: field '{column}' holds half a character ({half}), which no UTF-8 can write") from error
    return value


def read_number(place: str, column: str, value: Any) -> float | None:
    """A finite number, or its text, as a CSV file has it; null and an empty cell are None. UserError for all else."""
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{place}: field '{column}' must be a finite number, not {shown(value)}")
    return number


def read_margin(place: str, column: str, value: Any) -> float:
    """A number of at least 0, or its text, as a CSV file has it; null and an empty cell are 0. UserError for all else."""
    try:
        margin = read_number(place, column, value) or 0.0
    except UserError:
        margin = math.nan
    if not margin >= 0:
        raise UserError(f"{place}: field '{column}' must be a finite number of at least 0, not {shown(value)}")
    return margin


def read_flag(place: str, column: str, value: Any) -> bool | None:
    """True or false, or the word for it, as a CSV file has it; null and an empty cell are None. UserError for all else."""
    if value is None or value == "" or isinstance(value, bool):
        return None if value == "" else value
    if not isinstance(value, str) or value.lower() not in FLAGS:
        raise UserError(f"{place}: field '{column}' must be true or false, not {shown(value)}")
    return FLAGS[value.lower()]
