"""Where data come from: the generated world, rows or stories of the user's own; all become `Prepared`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rlhf.config import Data, Prepare, Stories
from rlhf.data.entries import Entry, read_entries
from rlhf.data.places import files_of
from rlhf.data.prepared import Prepared
from rlhf.data.raw import read_raw
from rlhf.data.splits import HeldOut, key_of, split_of
from rlhf.data.stories import story_entries
from rlhf.data.trees import read_trees
from rlhf.data.unusable import Survey, kept, refuse_too_many, survey
from rlhf.data.world import load_world
from rlhf.records import WRITER, Demonstration, Message, Messages, Preference, Prompt, Ranking, Response
from rlhf.seeds import shuffled

Seeds = Callable[[str], int]
T = TypeVar("T")
LABELER = "dataset"


def prepare(data: Data, shares: Prepare, seed_of: Seeds) -> Prepared:
    """Reads or generates what `data` asks for. UserError for what is wrong with it."""
    match data.source:
        case "world":
            return from_world(data, shares, seed_of)
        case _:
            return from_rows(data, shares, seed_of)


def from_world(data: Data, shares: Prepare, seed_of: Seeds) -> Prepared:
    """`data.prompts` prompts, `data.demonstrations` answers to the train ones and one to each held-out prompt.

    No document of the corpus has a held-out prompt in it, in any case and with any marks around it: a base model that
    has read a prompt with its answer would make the held-out figures too good. Prompts that are in no split may occur.
    """
    world = load_world(Path(data.path))
    prompts = [_prompt((Message("user", text),), shares) for text in world.prompts(data.prompts, seed_of("prompts"))]
    train = [_text(prompt) for prompt in prompts if prompt.split == "train"]
    held_out = [_text(prompt) for prompt in prompts if prompt.split != "train"]
    answers = [
        *(world.demonstrations(train, data.demonstrations, seed_of("demonstrations")) if train else []),
        *(world.demonstrations(held_out, len(held_out), seed_of("held-out demonstrations")) if held_out else []),
    ]
    found = HeldOut(held_out)
    return Prepared(
        demonstrations=[_demonstration((Message("user", text),), answer, shares) for text, answer in answers],
        prompts=prompts,
        preferences=[],
        documents=world.corpus(data.documents, seed_of("corpus"), keep=lambda text: not found.inside(text)),
        rows={"read": len(answers), "kept": len(answers), "dropped": {}, "left_out": 0},
    )


def from_rows(data: Data, shares: Prepare, seed_of: Seeds) -> Prepared:
    """The user's rows or stories as demonstrations, which of several responses is the best, preferences and rankings.

    `data.prompts` and `data.demonstrations` leave all but so many out (prompts with all their rows, train demonstrations),
    by a draw; 0 leaves out none. The corpus is the text of the train demonstrations, of which no prompt is held out. The
    rows are read twice: the first time nothing is kept of their text, so that memory holds what was drawn alone.
    """
    files = [Path(data.path)] if data.source == "stories" else files_of(data)
    unused: Counter[str] = Counter()
    found = survey(_entries(files, data, unused))
    refuse_too_many(data.path, _entries(files, data), found, shares.max_dropped_share, _mend(data.stories))
    drawn = _some(found.kept_prompts(), data.prompts, seed_of("prompts"))
    entries = list(kept(_entries(files, data), found, drawn))
    every = dict.fromkeys(_demonstration(entry.prompt, entry.answers[0], shares) for entry in entries)
    learned = _some([d for d in every if d.split == "train"], data.demonstrations, seed_of("demonstrations"))
    compared = [entry for entry in entries if len(entry.sides) > 1]
    in_pairs = all(entry.ranks == (0, 1) for entry in compared)
    settings = {"source": Path(data.path).name} | ({"revision": data.revision} if data.revision else {})
    return Prepared(
        demonstrations=[*learned, *(d for d in every if d.split != "train")],
        prompts=[_prompt(prompt, shares) for prompt in _distinct([entry.prompt for entry in entries])],
        preferences=[_preference(entry, shares, settings) for entry in compared] if in_pairs else [],
        documents=_some([_document(d) for d in learned], data.documents, seed_of("corpus")),
        rows=_rows(found, entries) | ({"unused": dict(+unused)} if +unused else {}),
        rankings=[] if in_pairs else [_ranking(entry, shares, settings) for entry in compared],
    )


def _entries(files: Sequence[Path], data: Data, unused: Counter[str] | None = None) -> Iterator[Entry]:
    """The rows of all files, one at a time; a tree of messages may have its rows anywhere."""
    count = Counter[str]() if unused is None else unused
    if data.stories is not None:
        return (entry for path in files for entry in story_entries(path, data.stories))
    if data.source == "oasst":
        return read_trees((row for path in files for row in read_raw(path)), count)
    return (entry for path in files for entry in read_entries(path, data, count))


def _mend(stories: Stories | None) -> str:
    """What to do about entries that cannot be used."""
    if stories is None:
        return "mend them"
    return (
        f"mend them, lower data.stories.opening_sentences ({stories.opening_sentences}) or "
        f"data.stories.continuation_sentences ({stories.continuation_sentences})"
    )


def _some(items: Sequence[T], count: int, seed: int) -> list[T]:
    """`count` of the items, drawn, in their own order; all of them for 0."""
    if not count:
        return list(items)
    return [items[i] for i in sorted(shuffled(len(items), seed)[:count])]


def _distinct(prompts: Sequence[Messages]) -> list[Messages]:
    """The first of each prompt that differs in more than case and white space."""
    first: dict[str, Messages] = {}
    for prompt in prompts:
        first.setdefault(key_of(prompt), prompt)
    return list(first.values())


def _rows(found: Survey, entries: Sequence[Entry]) -> dict[str, Any]:
    dropped = found.dropped()
    read = len(found.reasons)
    return {
        "read": read,
        "kept": len(entries),
        "dropped": dropped,
        "left_out": read - sum(dropped.values()) - len(entries),
    }


def _text(prompt: Prompt) -> str:
    return prompt.prompt[-1].content


def _prompt(prompt: Messages, shares: Prepare) -> Prompt:
    return Prompt(prompt, split_of(prompt, shares))


def _demonstration(prompt: Messages, completion: str, shares: Prepare) -> Demonstration:
    return Demonstration(prompt, completion, split_of(prompt, shares))


def _preference(entry: Entry, shares: Prepare, settings: dict[str, Any]) -> Preference:
    chosen, rejected = entry.answers
    split = split_of(entry.prompt, shares)
    return Preference(entry.prompt, chosen, rejected, split, LABELER, settings=settings, margin=entry.margin)


def _ranking(entry: Entry, shares: Prepare, settings: dict[str, Any]) -> Ranking:
    responses = tuple(Response(text, True, WRITER) for text in entry.answers)
    split = split_of(entry.prompt, shares)
    return Ranking(entry.prompt, responses, entry.ranks, split, LABELER, settings=settings, margin=entry.margin)


def _document(demonstration: Demonstration) -> str:
    return "\n\n".join([*(turn.content for turn in demonstration.prompt), demonstration.completion])
