"""Which split a prompt belongs to, and the check that no prompt is in two."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from rlhf.config import Prepare
from rlhf.data.words import join_words, split_words
from rlhf.errors import UserError
from rlhf.records import Demonstration, Messages, Preference, Prompt, Ranking, Split

REMEMBERED = 2**14  # prompts whose key need not be found again
SPLIT_BYTES = 8  # of the hash, read as a number between 0 and 1


def normalised(text: str) -> str:
    """One text for all that differ in case, white space or Unicode form only: NFKC, case folded, single spaces (none in
    scripts without).

    Folding may undo the form, the form may uncover case, and a mark may find its letter where a space goes, so all is done
    three times; once more changes nothing. Upper case comes first because some letters share theirs and no more (the
    dotless i).
    """
    text = unicodedata.normalize("NFD", text)
    for _ in range(3):
        text = join_words(split_words(unicodedata.normalize("NFKC", text.upper().casefold())))
    return text


@lru_cache(maxsize=REMEMBERED)
def key_of(prompt: Messages) -> str:
    """What makes a prompt the same prompt: the whole conversation, roles included, each turn normalised."""
    return "\n".join(f"{turn.role}: {normalised(turn.content)}" for turn in prompt)


def split_of(prompt: Messages, shares: Prepare) -> Split:
    """The split that a prompt is in: a function of its key and the shares alone, in every run on every machine."""
    digest = hashlib.sha256(key_of(prompt).encode()).digest()[:SPLIT_BYTES]
    place = int.from_bytes(digest, "big") / 2 ** (8 * SPLIT_BYTES)
    if place < shares.test_share:
        return "test"
    return "validation" if place < shares.test_share + shares.validation_share else "train"


def refuse_leaks(records: Iterable[Demonstration | Prompt | Preference | Ranking]) -> None:
    """UserError if a prompt is in two splits, whatever kinds of record it is in."""
    seen: dict[str, tuple[Split, str]] = {}
    for record in records:
        here = (record.split, type(record).__name__.lower())
        split, kind = seen.setdefault(key_of(record.prompt), here)
        if split != record.split:
            raise UserError(
                f"leak between splits: the prompt {record.prompt[-1].content[:80]!r} is in {split} (a {kind}) and in "
                f"{record.split} (a {here[1]}); nothing was written"
            )


def refuse_leaking_documents(documents: Iterable[str], held_out: Iterable[str]) -> None:
    """UserError if a held-out prompt stands in a document."""
    found = HeldOut(held_out)
    for number, document in enumerate(documents, start=1):
        if found.inside(document):
            raise UserError(
                f"leak between splits: document {number} of the corpus has a held-out prompt in it: {document!r}"
            )


Trie = dict[str, "Trie"]
END = ""  # no word is empty, so it can mark where a prompt ends


class HeldOut:
    """Finds held-out prompts inside documents, word by word, whatever their case and the marks that stand alone."""

    def __init__(self, prompts: Iterable[str]) -> None:
        self._root: Trie = {}
        for prompt in prompts:
            node = self._root
            for word in words_of(prompt):
                node = node.setdefault(word, {})
            node[END] = {}

    def inside(self, document: str) -> bool:
        words = words_of(document)
        return any(self._starts(words, i) for i in range(len(words)))

    def _starts(self, words: list[str], start: int) -> bool:
        node = self._root
        for word in words[start:]:
            if word not in node:
                return False
            node = node[word]
            if END in node:
                return True
        return False


def words_of(text: str) -> list[str]:
    """The normalised words of a text; marks that stand alone are none."""
    return [word for word in split_words(normalised(text)) if any(c.isalnum() for c in word)]
