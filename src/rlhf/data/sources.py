"""Where data come from: the generated world, or a file of the user's own; both become `Prepared`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rlhf.config import Data, Prepare
from rlhf.data.entries import Entry, read_entries
from rlhf.data.prepared import Prepared
from rlhf.data.splits import HeldOut, key_of, split_of
from rlhf.data.unusable import Sorted, refuse_too_many, sort_out
from rlhf.data.world import load_world
from rlhf.records import Demonstration, Message, Messages, Preference, Prompt
from rlhf.seeds import shuffled

Seeds = Callable[[str], int]
T = TypeVar("T")
LABELER = "dataset"


def prepare(data: Data, shares: Prepare, seed_of: Seeds) -> Prepared:
    """Reads or generates what `data` asks for. UserError for what is wrong with it."""
    return from_world(data, shares, seed_of) if data.source == "world" else from_file(data, shares, seed_of)


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


def from_file(data: Data, shares: Prepare, seed_of: Seeds) -> Prepared:
    """The rows of a file as demonstrations, which for a preference is the chosen side, and as preferences if they are.

    `data.prompts` and `data.demonstrations` leave all but so many out (prompts with all their rows, train demonstrations),
    by a draw; 0 leaves out none. The corpus is the text of the train demonstrations, of which no prompt is held out.
    """
    path = Path(data.path)
    found = sort_out(read_entries(path, "hh_rlhf" if data.source == "hh_rlhf" else "files", data.columns.named()))
    refuse_too_many(str(path), found, shares.max_dropped_share)
    kept = _of_some_prompts(found.kept, data.prompts, seed_of("prompts"))
    every = dict.fromkeys(_demonstration(entry.prompt, entry.chosen[-1].content, shares) for entry in kept)
    learned = _some([d for d in every if d.split == "train"], data.demonstrations, seed_of("demonstrations"))
    settings = {"source": path.name}
    return Prepared(
        demonstrations=[*learned, *(d for d in every if d.split != "train")],
        prompts=[_prompt(prompt, shares) for prompt in _distinct([entry.prompt for entry in kept])],
        preferences=[_preference(entry, shares, settings) for entry in kept if entry.rejected is not None],
        documents=_some([_document(d) for d in learned], data.documents, seed_of("corpus")),
        rows=_rows(found, kept),
    )


def _of_some_prompts(entries: Sequence[Entry], count: int, seed: int) -> list[Entry]:
    chosen = {key_of(prompt) for prompt in _some(_distinct([entry.prompt for entry in entries]), count, seed)}
    return [entry for entry in entries if key_of(entry.prompt) in chosen]


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


def _rows(found: Sorted, kept: Sequence[Entry]) -> dict[str, Any]:
    dropped = {reason: len(places) for reason, places in found.dropped.items()}
    return {"read": found.read, "kept": len(kept), "dropped": dropped, "left_out": len(found.kept) - len(kept)}


def _text(prompt: Prompt) -> str:
    return prompt.prompt[-1].content


def _prompt(prompt: Messages, shares: Prepare) -> Prompt:
    return Prompt(prompt, split_of(prompt, shares))


def _demonstration(prompt: Messages, completion: str, shares: Prepare) -> Demonstration:
    return Demonstration(prompt, completion, split_of(prompt, shares))


def _preference(entry: Entry, shares: Prepare, settings: dict[str, Any]) -> Preference:
    assert entry.rejected is not None
    chosen, rejected = entry.chosen[-1].content, entry.rejected[-1].content
    split = split_of(entry.prompt, shares)
    return Preference(entry.prompt, chosen, rejected, split, LABELER, settings=settings, margin=entry.margin)


def _document(demonstration: Demonstration) -> str:
    return "\n\n".join([*(turn.content for turn in demonstration.prompt), demonstration.completion])
