"""Words, in scripts with spaces and without."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.data.words import join_words, split_words, words

MIXED = st.text(st.sampled_from("abA1.,?猫鼠，。？“”カไ \t\n\u3000"), max_size=30)


def test_words_have_no_case_and_no_punctuation_and_are_characters_where_there_are_no_spaces() -> None:
    assert words("Beef, or CHICKEN ?") == ["beef", "or", "chicken"]
    assert words("我爱你, PyTorch！") == ["我", "爱", "你", "pytorch"]
    assert words("naïve Größe été") == ["naïve", "größe", "été"]


@pytest.mark.parametrize(
    ("text", "parts", "joined"),
    [
        ("Who  is\nit?", ["Who", "is", "it?"], "Who is it?"),
        ("写一个故事。", ["写", "一", "个", "故", "事", "。"], "写一个故事。"),
        ("我 爱 你 ， PyTorch ！", ["我", "爱", "你", "，", "PyTorch", "！"], "我爱你，PyTorch！"),
        ("用PyTorch 2.0写 hello world", ["用", "PyTorch", "2.0", "写", "hello", "world"], "用PyTorch 2.0写hello world"),
        ("“猫”, he said", ["“", "猫", "”,", "he", "said"], "“猫”, he said"),
        ("", [], ""),
    ],
)
def test_a_text_is_taken_apart_and_put_together(text: str, parts: list[str], joined: str) -> None:
    assert split_words(text) == parts
    assert join_words(parts) == joined


@given(st.text(st.characters(max_codepoint=0x0DFF)))
def test_where_there_are_spaces_they_alone_divide(text: str) -> None:
    assert split_words(text) == text.split()
    assert join_words(text.split()) == " ".join(text.split())


@given(MIXED)
def test_what_is_put_together_comes_apart_again_and_has_no_space_beside_a_script_without_spaces(text: str) -> None:
    joined = join_words(split_words(text))
    assert split_words(joined) == split_words(text)
    assert join_words(split_words(joined)) == joined
    assert "".join(joined.split()) == "".join(text.split())
    assert not any(f"{mark} " in joined or f" {mark}" in joined for mark in "猫鼠，。？カไ")


@given(MIXED, MIXED)
def test_texts_are_put_together_as_their_words_are(one: str, other: str) -> None:
    one, other = (join_words(split_words(text)) for text in (one, other))
    assert join_words((one, other)) == join_words((*split_words(one), *split_words(other)))
