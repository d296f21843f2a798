"""Which column is what: our names for the user's columns, and the form that a file's columns make."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Literal

from rlhf.errors import UserError

Form = Literal["preference", "conversation", "demonstration"]
FORMS: dict[Form, tuple[str, ...]] = {
    "preference": ("chosen", "rejected"),
    "conversation": ("messages",),
    "demonstration": ("prompt", "completion"),
}
NAMES = ("prompt", "input", "completion", "messages", "chosen", "rejected", "margin")
SIMILAR = 0.6  # share of the letters that a misspelt name has in common with the one that was meant


def name_columns(path: str, there: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """{our name: column} of everything that can be used: what `data.columns` says, and columns that bear our names.

    `input` is used only where `data.columns` says so: in other files it is often something else.

    Raises:
        UserError: `data.columns` names a column that is not there.
    """
    for ours, theirs in columns.items():
        if theirs not in there:
            raise UserError(
                f"data.columns.{ours} ({theirs}): {path} has no such column{_nearest(theirs, there)}; "
                f"it has {', '.join(there)}"
            )
    taken = set(columns.values())
    same = {name: name for name in NAMES if name in there and name != "input" and name not in taken}
    return same | dict(columns)


def choose_form(path: str, there: Sequence[str], named: Mapping[str, str], columns: Mapping[str, str]) -> Form:
    """The form whose columns are all there; of several the one that `data.columns` speaks of, then the richest.

    Raises:
        UserError: there is none.
    """
    fitting = [form for form, needed in FORMS.items() if set(needed) <= named.keys()]
    if not fitting:
        meant = next((f"; is {name!r} meant as {near!r}?" for name in there if (near := _near(name, NAMES))), "")
        raise UserError(
            f"{path}: the columns {', '.join(there)} make none of the forms "
            f"{', '.join(' + '.join(needed) for needed in FORMS.values())}{meant}; "
            "say which is which, for example 'data.columns={prompt: question, completion: answer}'"
        )
    return max(fitting, key=lambda form: sum(name in columns for name in FORMS[form]))


def _nearest(name: str, known: Sequence[str]) -> str:
    near = _near(name, known)
    return f"; did you mean {near}?" if near else ""


def _near(name: str, known: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(name, [other for other in known if other != name], n=1, cutoff=SIMILAR)
    return near[0] if near else None
