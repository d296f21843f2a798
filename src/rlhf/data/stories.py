"""Stories cut in two: how each opens is a prompt, and how it goes on a demonstration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlhf.config import Stories
from rlhf.data.entries import Entry
from rlhf.data.files import text_lines
from rlhf.errors import UserError
from rlhf.records import Message

END = "<|endoftext|>"  # between two stories, as in the files of TinyStories
TOO_SHORT = "too_short"  # why a story is dropped
BETWEEN = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"”])\s+")
WHOLE = re.compile(r"[.!?][\"”]?$")


@dataclass(frozen=True, slots=True)
class Cut:
    opening: str
    continuation: str


def story_entries(path: Path, sizes: Stories) -> Iterator[Entry]:
    """Every story of a file as a demonstration of how it goes on; one with too few whole sentences cannot be used."""
    for place, story in read_stories(path):
        found = cut(story, sizes)
        if found is None:
            yield Entry(place, (), fault=TOO_SHORT)
        else:
            yield Entry(place, ((Message("user", found.opening), Message("assistant", found.continuation)),))


def read_stories(path: Path) -> Iterator[tuple[str, str]]:
    """The texts between the marks of a UTF-8 file, one at a time, each with the line it begins in: `data/x.txt:17`.

    Raises:
        UserError: there is no such file, it is a folder, it is not UTF-8, or it has no story.
    """
    if path.is_dir():
        raise UserError(f"data.path ({path}): is a folder; name one file of stories, with {END} between two of them")
    empty, begins, lines = True, 0, list[str]()
    for number, line in text_lines(path):
        *ended, rest = line.split(END)
        for text in ended:
            story = "".join([*lines, text]).strip()
            if story:
                yield f"{path}:{begins or number}", story
                empty = False
            begins, lines = 0, []
        if rest.strip():
            begins = begins or number
        lines.append(rest)
    if last := "".join(lines).strip():
        yield f"{path}:{begins}", last
    elif empty:
        raise UserError(f"{path}: has no stories")


def cut(story: str, sizes: Stories) -> Cut | None:
    """The first sentences and the next ones, white space made single; None where there are not so many whole ones."""
    sentences = BETWEEN.split(" ".join(story.split()))
    most = sizes.opening_sentences + sizes.continuation_sentences
    if len(sentences) < most or not WHOLE.search(sentences[most - 1]):
        return None
    opening, continuation = sentences[: sizes.opening_sentences], sentences[sizes.opening_sentences : most]
    return Cut(" ".join(opening), " " * sizes.space_before_continuation + " ".join(continuation))
