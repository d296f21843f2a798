"""Words, in scripts with spaces and without."""

from __future__ import annotations

from rlhf.data.words import words


def test_words_have_no_case_and_no_punctuation_and_are_characters_where_there_are_no_spaces() -> None:
    assert words("Beef, or CHICKEN ?") == ["beef", "or", "chicken"]
    assert words("我爱你, PyTorch！") == ["我", "爱", "你", "pytorch"]
    assert words("naïve Größe été") == ["naïve", "größe", "été"]
