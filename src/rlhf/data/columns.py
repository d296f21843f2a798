"""Which column is what: our names for the user's columns, and the form that a file's columns make."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from rlhf.config import Data
from rlhf.errors import UserError

Form = Literal["preference", "conversation", "demonstration", "transcripts", "scored_pair", "completions", "votes"]
FORMS: dict[Form, tuple[str, ...]] = {
    "preference": ("chosen", "rejected"),
    "conversation": ("messages",),
    "demonstration": ("prompt", "completion"),
}
NAMES = ("prompt", "input", "completion", "messages", "chosen", "rejected", "margin")
NOT_IN_EVERY_ROW = ("input", "system", "history")  # nor, perhaps, in the first
SIMILAR = 0.6  # share of the letters that a misspelt name has in common with the one that was meant
OTHER_NAMES = {  # that files have for ours
    "prompt": ("question", "instruction", "query", "input", "user"),
    "completion": ("answer", "response", "output", "reply", "assistant"),
    "chosen": ("accepted", "preferred", "better", "winner"),
    "rejected": ("dispreferred", "worse", "loser"),
}
SYSTEM = {"system": "system"}  # beside conversations, in LLaMA-Factory's forms
KNOWN_BY = {  # sets that data=files does not read, by columns that only they have
    "shp": {"human_ref_A", "human_ref_B"},
    "oasst": {"message_tree_id"},
    "conversations": {"conversations", "chosen", "rejected"},
    "messages": {"conversations"},
    "ultrafeedback": {"instruction", "completions"},
    "alpaca": {"instruction", "output"},
}


def name_columns(path: str, there: Sequence[str], data: Data) -> dict[str, str]:
    """{our name: column} of all that can be used: what `data.columns` says, what the set is known for, and our own names.

    `input` is used only where one of the former says so: in other files it is often something else.

    Raises:
        UserError: `data.columns` names a column that is not there.
    """
    columns = data.columns.named()
    for ours, theirs in columns.items():
        if theirs not in there:
            raise UserError(
                f"data.columns.{ours} ({theirs}): {path} has no such column{_nearest(theirs, there)}; "
                f"it has {', '.join(there)}"
            )
    taken = set(columns.values())
    same = {name: name for name in NAMES if name in there and name != "input" and name not in taken}
    usual = _usual_names(data, there)
    once = {name: column for name, column in usual.items() if name not in NOT_IN_EVERY_ROW or column not in taken}
    return same | once | columns


def _usual_names(data: Data, there: Sequence[str]) -> dict[str, str]:
    """{our name: the set's} of the columns that are there, and of those that only some rows have."""
    match data.source:
        case "alpaca":
            usual = {"prompt": "instruction", "input": "input", "completion": "output", "history": "history"} | SYSTEM
        case "messages" if "messages" not in there:
            usual = {"messages": "conversations"} | SYSTEM
        case "messages":
            usual = SYSTEM
        case "conversations":
            usual = {"prompt": "conversations"} | SYSTEM
        case "ultrafeedback" if "completions" in there:
            usual = {"prompt": "instruction"}
        case "shp":
            usual = {"prompt": "history"}
        case _:
            usual = {}
    return {ours: theirs for ours, theirs in usual.items() if theirs in there or ours in NOT_IN_EVERY_ROW}


def form_of(path: str, there: Sequence[str], named: Mapping[str, str], data: Data) -> Form:
    """The form that the source has; of data=files the one that the columns make.

    Raises:
        UserError: a column that it needs is not there.
    """
    form: Form
    match data.source:
        case "hh_rlhf":
            form, needed = "transcripts", {"chosen": "chosen", "rejected": "rejected"}
        case "ultrafeedback" if "completions" in there:
            form, needed = "completions", {"prompt": "instruction"}
        case "ultrafeedback":
            form, needed = "scored_pair", {"chosen": "chosen", "rejected": "rejected"}
        case "shp":
            form, needed = "votes", {"prompt": "history", "human_ref_A": "human_ref_A", "human_ref_B": "human_ref_B"}
        case "alpaca":
            form, needed = "demonstration", {"prompt": "instruction", "completion": "output"}
        case "messages":
            form, needed = "conversation", {"messages": "messages (or conversations)"}
        case "conversations":
            form, needed = "preference", {"prompt": "conversations", "chosen": "chosen", "rejected": "rejected"}
        case "preferences":
            form, needed = "preference", {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
        case _:
            return _fitting_form(path, there, named, data.columns.named())
    lacking = {ours: column for ours, column in needed.items() if ours not in named and column not in there}
    if lacking:
        raise UserError(
            f"{path}: has no column{'s' * (len(lacking) > 1)} {' and '.join(lacking.values())}, but {', '.join(there)}; "
            f"{_columns_for(lacking, there) or 'data=files reads other forms'}"
        )
    return form


def _columns_for(lacking: Collection[str], there: Sequence[str]) -> str:
    """The setting that names a column for each that is lacking, where there is one of that kind."""
    found = {ours: next((name for name in OTHER_NAMES.get(ours, ()) if name in there), None) for ours in lacking}
    pairs = ", ".join(f"{ours}: {theirs}" for ours, theirs in found.items())
    return f"say which is which: 'data.columns={{{pairs}}}'" if all(found.values()) else ""


def _fitting_form(path: str, there: Sequence[str], named: Mapping[str, str], columns: Mapping[str, str]) -> Form:
    """The form whose columns are all there; of several the one that `data.columns` speaks of, then the richest."""
    fitting = [form for form, needed in FORMS.items() if set(needed) <= named.keys()]
    if not fitting:
        known = next((f"; is this {name} (data={name})?" for name, by in KNOWN_BY.items() if by <= set(there)), "")
        meant = next((f"; is {name!r} meant as {near!r}?" for name in there if (near := _near(name, NAMES))), "")
        raise UserError(
            f"{path}: the columns {', '.join(there)} make none of the forms "
            f"{', '.join(' + '.join(needed) for needed in FORMS.values())}{known or meant}; "
            "say which is which, for example 'data.columns={prompt: question, completion: answer}'"
        )
    return max(fitting, key=lambda form: sum(name in columns for name in FORMS[form]))


def _nearest(name: str, known: Sequence[str]) -> str:
    near = _near(name, known)
    return f"; did you mean {near}?" if near else ""


def _near(name: str, known: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(name, [other for other in known if other != name], n=1, cutoff=SIMILAR)
    return near[0] if near else None
