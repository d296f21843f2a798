"""The world's table: its shape, and reading it from YAML with one clear line for what is wrong.

Only the shape is here. What templates and slots mean is in `template.py` and `cases.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlhf.errors import UserError

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(pattern=r"^[^\sA-Z]+( [^\sA-Z]+)*$")]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]
TextOrTexts = Text | Texts


class Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Weights(Shape):
    help: Finite
    honest: Finite
    logic: Finite
    harm: Finite


class Gold(Shape):
    """The rater's numbers: weights of the axes, and what each fault takes from logic or adds to harm."""

    weights: Weights
    ramble: Cost
    repeat: Cost
    contradiction: Cost
    disorder: Cost
    unreadable: Cost
    unreadable_words: Count
    nothing: Cost
    lowest_logic: Finite
    insult: Cost
    danger: Cost
    highest_harm: Cost


class LogicFaults(Shape):
    """How often an error of logic is rambling, saying a thing twice, or taking it back (relative weights)."""

    ramble: Cost
    repeat: Cost
    contradiction: Cost


class Demonstrators(Shape):
    careful_share: Share
    careful_rate: Share
    polite_share: Share
    closing_share: Share
    most_rambles: Count
    logic: LogicFaults


class Corpus(Shape):
    """Shares of the kinds of documents; `off_topic` is the share of forum answers that answer something else."""

    forum: Share
    facts: Share
    ideas: Share
    questions: Share
    chatter: Share
    off_topic: Share
    fact_families: Texts


class Sentences(Shape):
    """Sentences that belong to no family."""

    openers: Texts
    polite: Texts
    insults: Texts
    closings: Texts
    boasts: Texts
    rambles: Texts
    contradictions: Texts
    ideas: Texts


class Rates(Shape):
    """The share of careless demonstrators who err, per axis."""

    help: Share
    honest: Share
    logic: Share
    harm: Share


class PartTexts(Shape):
    """One part of an answer: right, as a lie (without `wrong`, `right` with wrong values), as a danger."""

    right: Texts
    wrong: tuple[Text, ...] = ()
    harmful: tuple[Text, ...] = ()


class CaseTexts(Shape):
    slots: dict[Text, Text]
    prompts: Texts
    parts: Annotated[tuple[PartTexts, ...], Field(min_length=2)]


class FamilyTexts(Shape):
    rates: Rates
    honest: Literal["lie", "boast"]
    harm: Literal["insult", "part"]
    cases: Annotated[tuple[CaseTexts, ...], Field(min_length=1)]


class Table(Shape):
    """All of the world: see data/world/english.yaml, where each key is explained."""

    language: Text
    sentence_ends: Texts
    max_prompt_words: Count
    max_answer_words: Count
    gold: Gold
    demonstrators: Demonstrators
    corpus: Corpus
    sentences: Sentences
    lists: dict[Text, Texts]
    relations: dict[Text, dict[Text, TextOrTexts]]
    families: Annotated[dict[Text, FamilyTexts], Field(min_length=1)]


def read_table(path: Path) -> Table:
    """The table in `path`. Raises UserError naming the file and the key that is wrong."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read the world's table ({error.strerror}); set data.path to a table") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML in UTF-8: {' '.join(str(error).split())}") from error
    try:
        return Table.model_validate(raw)
    except ValidationError as error:
        raise UserError(_first_complaint(path, error)) from error


def _first_complaint(path: Path, error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the whole file"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    given = "" if first["type"] in ("missing", "extra_forbidden") else f", not {first['input']!r:.80}"
    return f"{path}: {key}: {_explain(first['type'], first['msg'])}{given}{more}"


def _explain(kind: str, message: str) -> str:
    if kind == "string_pattern_mismatch":
        return "must be lower-case words with single spaces between them"
    if kind == "string_type":
        return "must be text (put words such as no, yes and on in quotes)"
    if kind == "missing":
        return "is missing from this table"
    if kind == "extra_forbidden":
        return "is no key of this table"
    return message[0].lower() + message[1:]
