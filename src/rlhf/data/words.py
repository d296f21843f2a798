"""What a word is and how words stand together, wherever texts are taken apart, counted or compared."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Thai to Lao, Burmese, Khmer, kana, Chinese characters: written without spaces, so that each character stands for a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_MARKS = "\u3001-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"  # their punctuation: no spaces around it either
WITHOUT_SPACES = f"[{_UNSPACED}{_MARKS}]"
BESIDE_THEM = f"(?<={WITHOUT_SPACES}) | (?={WITHOUT_SPACES})"  # a space that such scripts do not write

_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_WORD_OR_MARK = re.compile(rf"{WITHOUT_SPACES}|[^\s{_UNSPACED}{_MARKS}]+")
_BESIDE_THEM = re.compile(BESIDE_THEM)


def words(text: str) -> list[str]:
    """Words in lower case, without punctuation; in scripts without spaces, characters."""
    return _WORD.findall(text.lower())


def split_words(text: str) -> list[str]:
    """What stands between white space, as it is; in scripts without spaces, characters and marks."""
    return text.split() if text.isascii() else _WORD_OR_MARK.findall(text)


def join_words(texts: Iterable[str]) -> str:
    """Words or texts as one text: a space between two of them, but none beside a script without spaces."""
    joined = " ".join(text for text in texts if text)
    return joined if joined.isascii() else _BESIDE_THEM.sub("", joined)
