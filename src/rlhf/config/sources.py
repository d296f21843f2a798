"""What the pipeline starts from: data, a model, and whoever orders the responses."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import model_validator

from rlhf.config.section import Count, CountOrNone, NotNegative, Positive, Section, must_divide

COMMIT = re.compile("[0-9a-f]{40}")


class Columns(Section):
    """The user's names for ours, where a file has other ones; docs/data.md says what each is."""

    prompt: str | None
    input: str | None
    completion: str | None
    messages: str | None
    chosen: str | None
    rejected: str | None
    margin: str | None

    def named(self) -> dict[str, str]:
        """{our name: the user's} of those that are set."""
        return {ours: theirs for ours, theirs in self.model_dump().items() if theirs is not None}


class Language(Section):
    """The world's table in one language, and how long a response in it may be."""

    path: str
    max_response_tokens: Count


class Languages(Section):
    en: Language
    zh: Language


class Stories(Section):
    """Where a story is cut: so many sentences are the prompt, and so many after them the demonstration, which has the space
    between the two or not: there are tokenizers that put one before every text."""

    opening_sentences: Count
    continuation_sentences: Count
    space_before_continuation: bool


Source = Literal[
    "world",
    "stories",
    "files",
    "hh_rlhf",
    "ultrafeedback",
    "shp",
    "alpaca",
    "messages",
    "conversations",
    "oasst",
    "preferences",
]


class Data(Section):
    """Where raw data come from, what form they have, and how long a response may be; in the world table and length follow
    from its language.

    `path` is a file, a folder, or with a `revision` the id of a set on the Hugging Face hub; `file` is what DVC watches.
    `rater` is reviews, a zip file or a folder, that teach a gold rater of sentiment; a file of conf/: there is none of it.
    """

    name: str
    source: Source
    language: Literal["en", "zh"]
    path: str
    languages: Languages | None
    stories: Stories | None
    rater: str
    file: str
    revision: str | None
    pattern: str | None
    columns: Columns
    margin_per_score: NotNegative
    max_response_tokens: Count
    documents: CountOrNone
    demonstrations: CountOrNone
    prompts: CountOrNone

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.revision is not None and self.source == "world":
            raise ValueError(
                f"data.revision ({self.revision}) must be null with data.source (world): the world is made here, and its "
                "table is a file"
            )
        if self.language != "en" and self.source != "world":
            raise ValueError(
                f"data.language ({self.language}) must be en with data.source ({self.source}): it chooses the "
                "world's table, and other data are in the language they are in"
            )
        if (self.source == "stories") != (self.stories is not None):
            raise ValueError(
                f"data.stories ({'null' if self.stories is None else 'a group of settings'}) does not go with data.source "
                f"({self.source}): it is where stories are cut. Choose data=stories"
            )
        if self.source == "stories" and self.revision is not None:
            raise ValueError(
                f"data.revision ({self.revision}) must be null with data.source (stories): they are one file here"
            )
        if self.source == "stories" and self.pattern is not None:
            raise ValueError(
                f"data.pattern ({self.pattern}) must be null with data.source (stories): they are one file, and it "
                "chooses among several"
            )
        if self.source == "world" and self.learns_rater:
            raise ValueError(f"data.rater ({self.rater}) does not go with data.source (world): the world has its own rater")
        return self

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if self.revision is not None and not COMMIT.fullmatch(self.revision):
            raise ValueError(
                f"data.revision ({self.revision}) must be a commit in full, 40 digits of 0-9 and a-f, because a branch or "
                f"a tag can move: copy one from https://huggingface.co/datasets/{self.path}/commits/main"
            )
        sizes = {"documents": self.documents, "demonstrations": self.demonstrations, "prompts": self.prompts}
        for name, size in sizes.items():
            if self.source == "world" and not size:
                raise ValueError(
                    f"data.{name} (0) must be at least 1 with data.source (world): 0 means all of a file, and this is none"
                )
        return self

    @property
    def learns_rater(self) -> bool:
        """Whether `rater` names reviews; else it is one of the files of conf/, which has nothing to read."""
        return not self.rater.endswith(".yaml")

    @property
    def has_gold(self) -> bool:
        """Whether there is a gold rater: the world's, or one of sentiment."""
        return self.source == "world" or self.learns_rater


class TinyModel(Section):
    """The sizes of a model trained here from nothing, and its tokenizer: a token a word, or byte-pair encoding."""

    tokenizer: Literal["words", "bpe"]
    vocabulary: Count
    hidden_size: Count
    layers: Count
    heads: Count
    intermediate_size: Count
    initializer_range: Positive

    @model_validator(mode="after")
    def _check(self) -> Self:
        must_divide("model.tiny.hidden_size", self.hidden_size, "model.tiny.heads", self.heads)
        return self


class Model(Section):
    """The model to start from: trained here (`tiny`), a local directory, or a hub id at a pinned revision.

    `path` is the directory: of a hub model one with its files, which are then read there. A file of conf/: there is none.
    chat_template: Jinja, in place of the tokenizer's own; its text and not a file, so that DVC sees it change.
    """

    name: str
    source: Literal["tiny", "local", "hub"]
    path: str
    id: str | None
    revision: str | None
    max_tokens: CountOrNone
    chat_template: str | None
    tiny: TinyModel | None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.source == "tiny") != (self.tiny is not None):
            raise ValueError(
                f"model.tiny ({'null' if self.tiny is None else 'a group of settings'}) does not go with model.source "
                f"({self.source}): it is the sizes of a model trained here. Choose model=tiny, model=local or model=hub"
            )
        if self.source == "tiny" and self.max_tokens == 0:
            raise ValueError("model.max_tokens (0) must be at least 1: a model trained here has no context of its own")
        if self.source == "tiny" and self.chat_template is not None:
            raise ValueError(
                "model.chat_template must be null with model.source (tiny): the words of the plain one are in the "
                "vocabulary that is made here. Choose model=local or model=hub"
            )
        if self.source == "tiny" and self.is_folder:
            raise ValueError(
                f"model.path ({self.path}) does not go with model.source (tiny), which is trained here from nothing: choose "
                "model=local to start from that folder, or one of the models by name (docs/models.md)"
            )
        if self.source == "local" and not self.is_folder:
            raise ValueError(
                f"model.path ({self.path}) must be a folder with model.source (local): a Hugging Face model directory"
            )
        given = {"model.id": self.id, "model.revision": self.revision} if self.source != "hub" else {}
        for name, value in given.items():
            if value is not None:
                raise ValueError(
                    f"{name} ({value}) must be null with model.source ({self.source}): it is of a model of the hub. Choose "
                    "model=local model.path=DIR without it; or a hub model, whose files model.path=DIR reads from a folder"
                )
        if self.source == "hub" and not (self.id and self.revision):
            raise ValueError("model.id and model.revision are missing: a hub model is reproducible at a pinned commit only")
        if self.source == "hub" and not COMMIT.fullmatch(self.revision or ""):
            raise ValueError(
                f"model.revision ({self.revision}) must be a commit in full, 40 digits of 0-9 and a-f, because a branch or "
                f"a tag can move: copy one from https://huggingface.co/{self.id}/commits/main"
            )
        return self

    @property
    def is_folder(self) -> bool:
        """Whether `path` names a model; else it is one of the files of conf/, which has nothing to read."""
        return not self.path.endswith(".yaml")

    @property
    def place(self) -> tuple[str, str | None]:
        """Where a pretrained model is read: a folder without a revision, or a hub id with one."""
        return (self.path, None) if self.is_folder else (str(self.id), self.revision)


class Labeler(Section):
    """Who orders the responses: `gold` simulates a person, `judge` is a language model, `reward_model` a classifier with one
    label, and `dataset` keeps the preferences that came with the data."""

    name: Literal["gold", "dataset", "judge", "reward_model"]
    temperature: NotNegative
    path: str
    template: str
    pairs_per_prompt: CountOrNone
    check_pairs: CountOrNone

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == "gold" and not self.temperature:
            raise ValueError(
                "labeler.temperature (0) must be above 0 with labeler.name (gold): a person who never errs is no person"
            )
        if self.check_pairs and not self.ranks_texts:
            raise ValueError(
                f"labeler.check_pairs ({self.check_pairs}) must be 0 with labeler.name ({self.name}): only labeler=judge "
                "and labeler=reward_model can be asked about the data's own pairs"
            )
        return self

    @property
    def ranks_texts(self) -> bool:
        """Whether it can be asked about any two texts."""
        return self.name in ("judge", "reward_model")

    @property
    def is_folder(self) -> bool:
        """Whether `path` names a model; else it is one of the files of conf/, which has nothing to read."""
        return not self.path.endswith(".yaml")
