"""What a word is, wherever words are counted or compared."""

from __future__ import annotations

import re

# Thai to Lao, Burmese, Khmer, kana, Chinese characters: written without spaces, so that each character stands for a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """Words in lower case, without punctuation; in scripts without spaces, characters."""
    return _WORD.findall(text.lower())
