"""A judge of the user's own: a Python file with a function `score(prompt, response)` (docs/data.md)."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, nan
from numbers import Real
from pathlib import Path
from typing import Any

from rlhf.errors import UserError
from rlhf.records import Messages, messages_to_row

SHOWN = 80  # characters of a prompt or a value in a message
FAULTS = (Exception, SystemExit)  # a script that ends itself would end the stage without a word


@dataclass(frozen=True, slots=True)
class Scorer:
    """The function `score` of a file. `path` as the setting has it: messages name it."""

    path: str
    function: Callable[[list[dict[str, str]], str], float]

    def score(self, prompt: Messages, response: str) -> float:
        """What the function gives to a response.

        Raises:
            UserError: it raises, or gives no finite number.
        """
        asked = f"for the prompt '{_short(prompt[-1].content)}'"
        try:
            value = self.function(messages_to_row(prompt), response)
        except FAULTS as error:
            raise UserError(f"{self.path}: score raises {_said(error, self.path)} {asked}") from error
        number = _number(value)
        if not isfinite(number):
            raise UserError(f"{self.path}: score returns {_short(repr(value))} {asked}, and it must be a finite number")
        return number


def load_scorer(root: Path, path: str) -> Scorer:
    """Imports a file by its path from `root`, which runs it.

    Raises:
        UserError: there is no such file, it cannot be imported, or it has no function `score`.
    """
    if not (root / path).is_file():
        raise UserError(f"{path}: no such file, and evaluate.scorer names it")
    spec = importlib.util.spec_from_file_location(f"scorer_{Path(path).stem}", root / path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: is no Python file, and evaluate.scorer names it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except FAULTS as error:
        raise UserError(f"{path}: cannot be imported: {_said(error, path)}") from error
    function = getattr(module, "score", None)
    if not callable(function):
        raise UserError(f"{path}: has no function score(prompt, response)")
    return Scorer(path, function)


def _number(value: Any) -> float:
    """nan for what is no number, or a whole number that is beyond every float."""
    try:
        return float(value) if isinstance(value, Real) else nan
    except OverflowError:
        return nan


def _said(error: BaseException, path: str) -> str:
    """`ValueError: no such word (line 3)`: the last line of the file that was reached, where one was."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).name == Path(path).name]
    what = ": ".join([type(error).__name__, *([_short(str(error))] if str(error) else [])])
    return f"{what} (line {lines[-1]})" if lines else what


def _short(text: str) -> str:
    """On one line, and not the whole of a long text."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
