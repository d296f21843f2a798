"""What lies on disk: one frozen record a line, written once, in the ecosystem's conversational forms.

Every record carries its prompt explicitly, as messages, and the split its prompt belongs to. A file of any of them is
JSON lines in UTF-8 (`rlhf.data.files` reads and writes them); `to_row` and `from_row` are exact inverses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
WRITER = "dataset"  # the model of responses that came with the data, which do not say who wrote them


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Messages = tuple[Message, ...]


def messages_to_row(messages: Messages) -> list[dict[str, str]]:
    """The form chat templates take: [{"role": …, "content": …}, …]."""
    return [{"role": message.role, "content": message.content} for message in messages]


def messages_from_row(row: list[dict[str, str]]) -> Messages:
    return tuple(Message(message["role"], message["content"]) for message in row)  # type: ignore[arg-type]


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked: the conversation up to the turn it has to write."""

    prompt: Messages
    split: Split

    def to_row(self) -> dict[str, Any]:
        return {"prompt": messages_to_row(self.prompt), "split": self.split}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Prompt:
        return cls(messages_from_row(row["prompt"]), row["split"])


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and a response that somebody wrote for it (SPEC section 1)."""

    prompt: Messages
    completion: str
    split: Split

    def to_row(self) -> dict[str, Any]:
        return {"prompt": messages_to_row(self.prompt), "completion": _answer(self.completion), "split": self.split}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Demonstration:
        return cls(messages_from_row(row["prompt"]), row["completion"][0]["content"], row["split"])


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled response. `ended` is False where the length limit cut it off: it then has no end token.

    `token_ids`, end token included, are what the model said; the text alone may be tokenized in another way. None where
    the text is all there is.
    """

    text: str
    ended: bool
    model: str
    token_ids: tuple[int, ...] | None = None

    def to_row(self) -> dict[str, Any]:
        return {"text": self.text, "ended": self.ended, "model": self.model, "token_ids": _ids_to_row(self.token_ids)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Response:
        return cls(row["text"], row["ended"], row["model"], _ids_from_row(row["token_ids"]))


def _ids_to_row(ids: tuple[int, ...] | None) -> list[int] | None:
    return None if ids is None else list(ids)


def _ids_from_row(ids: list[int] | None) -> tuple[int, ...] | None:
    return None if ids is None else tuple(ids)


def _margin(margin: float) -> dict[str, float]:
    """A column of those rows only that have one."""
    return {"margin": margin} if margin else {}


@dataclass(frozen=True, slots=True)
class Responses:
    """K responses to one prompt, from one model or from several."""

    prompt: Messages
    responses: tuple[Response, ...]
    split: Split

    def to_row(self) -> dict[str, Any]:
        return {
            "prompt": messages_to_row(self.prompt),
            "responses": [response.to_row() for response in self.responses],
            "split": self.split,
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Responses:
        answers = tuple(Response.from_row(response) for response in row["responses"])
        return cls(messages_from_row(row["prompt"]), answers, row["split"])


def untied_pairs(ranks: Sequence[int]) -> list[tuple[int, int]]:
    """(better, worse) places of every pair of unequal ranks; the lower rank is the better one."""
    every = range(len(ranks))
    return [(i, j) for i in every for j in every if ranks[i] < ranks[j]]


@dataclass(frozen=True, slots=True)
class Ranking:
    """K responses in order: a lower rank is better, equal ranks are a tie, only the order counts.

    `labeler` and `settings` say who ordered them, and how. Two responses may come with a `margin`, in reward units (SPEC
    eq. 2).
    """

    prompt: Messages
    responses: tuple[Response, ...]
    ranks: tuple[int, ...]
    split: Split
    labeler: str
    settings: dict[str, Any] = field(default_factory=dict)
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.margin and len(self.responses) != 2:
            raise ValueError(f"a margin ({self.margin}) is between two responses, and here are {len(self.responses)}")
        if len(self.ranks) != len(self.responses):
            raise ValueError(f"ranks ({len(self.ranks)}) and responses ({len(self.responses)}) must be as many")

    def pairs(self) -> list[tuple[int, int]]:
        """(better, worse) indices of every untied pair."""
        return untied_pairs(self.ranks)

    def to_row(self) -> dict[str, Any]:
        row = Responses(self.prompt, self.responses, self.split).to_row()
        return row | {"ranks": list(self.ranks), "labeler": self.labeler, "settings": self.settings} | _margin(self.margin)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Ranking:
        drawn = Responses.from_row(row)
        ranks = tuple(row["ranks"])
        return cls(
            drawn.prompt, drawn.responses, ranks, drawn.split, row["labeler"], row["settings"], row.get("margin", 0.0)
        )


@dataclass(frozen=True, slots=True)
class Preference:
    """One ordered pair of a ranking (SPEC section 1): `chosen` y_w, `rejected` y_l.

    `chosen_ended` and `rejected_ended` are False where the response was cut off and so carries no end token; the token ids
    are those of the sampled responses, None where there is only text. `margin`, in reward units, is by how much `chosen`
    has to win (SPEC eq. 2).
    """

    prompt: Messages
    chosen: str
    rejected: str
    split: Split
    labeler: str
    chosen_ended: bool = True
    rejected_ended: bool = True
    chosen_token_ids: tuple[int, ...] | None = None
    rejected_token_ids: tuple[int, ...] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    margin: float = 0.0

    def to_row(self) -> dict[str, Any]:
        return {
            "prompt": messages_to_row(self.prompt),
            "chosen": _answer(self.chosen),
            "rejected": _answer(self.rejected),
            "split": self.split,
            "labeler": self.labeler,
            "chosen_ended": self.chosen_ended,
            "rejected_ended": self.rejected_ended,
            "chosen_token_ids": _ids_to_row(self.chosen_token_ids),
            "rejected_token_ids": _ids_to_row(self.rejected_token_ids),
            "settings": self.settings,
        } | _margin(self.margin)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Preference:
        return cls(
            prompt=messages_from_row(row["prompt"]),
            chosen=row["chosen"][0]["content"],
            rejected=row["rejected"][0]["content"],
            split=row["split"],
            labeler=row["labeler"],
            chosen_ended=row["chosen_ended"],
            rejected_ended=row["rejected_ended"],
            chosen_token_ids=_ids_from_row(row["chosen_token_ids"]),
            rejected_token_ids=_ids_from_row(row["rejected_token_ids"]),
            settings=row["settings"],
            margin=row.get("margin", 0.0),
        )
