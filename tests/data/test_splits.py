"""A prompt's split depends on what it says and on nothing else; a leak stops everything."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlhf.config import Prepare
from rlhf.data.splits import HeldOut, key_of, normalised, refuse_leaking_documents, refuse_leaks, split_of
from rlhf.errors import UserError
from rlhf.records import Demonstration, Message, Messages, Preference, Prompt, Split

SHARES = Prepare(validation_share=0.06, test_share=0.08, max_dropped_share=0.05)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SPACE = st.text(st.sampled_from(" \t\n\r\u00a0\u2003\u3000"), min_size=1, max_size=3)
WORDS = st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8), min_size=1, max_size=6)
MARKS = st.text(st.sampled_from("A\u0301 \u302aか\u3099ﾞｶ\u0e33\u0e4d\u3000ßé"), max_size=8)  # some beside no spaces
FEW = st.lists(st.sampled_from("abAB.?"), min_size=1, max_size=12).map(" ".join)


def ask(text: str) -> Messages:
    return (Message("user", text),)


@given(st.one_of(TEXT, MARKS))
@example("A \u0301 \u302a")  # the second mark goes before the first once the space between them has gone
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@given(TEXT)
def test_normalised_text_has_single_spaces_only(text: str) -> None:
    assert normalised(text).split() == [word for word in normalised(text).split(" ") if word]


@given(WORDS, st.data())
def test_white_space_and_case_do_not_move_a_prompt(words: list[str], data: st.DataObject) -> None:
    spaced = "".join(word + data.draw(SPACE) for word in words)
    plain = " ".join(words)
    for other in (data.draw(SPACE) + spaced, plain.casefold(), plain.lower(), spaced.casefold()):
        assert key_of(ask(other)) == key_of(ask(plain))
        assert split_of(ask(other), SHARES) == split_of(ask(plain), SHARES)


@given(st.text("abcXYZßéıΣς ", max_size=20))
def test_upper_case_does_not_move_a_prompt(text: str) -> None:
    assert key_of(ask(text.upper())) == key_of(ask(text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who  is\nit?", "who is it?"),
        ("ＡＢＣ１", "abc1"),  # full width
        ("\U0001d401\U0001d428\U0001d425\U0001d41d", "bold"),  # mathematical letters, whose case their form hides
        ("straße", "STRASSE"),
        ("caf\u00e9", "CAFE\u0301"),  # composed and not
        ("\ufb01sh", "FISH"),  # a ligature
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
        ("你好， 猫 住在哪里？", "你好,猫住在哪里?"),
        ("か\u3000\u3099", "が"),  # a mark that finds its letter when the space between them goes
        ("\u0345\u0300", "\u0300\u0345"),  # folding makes a letter of a mark, which then no longer moves
    ],
)
def test_prompts_that_are_one(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ask("who?"), ask("who")),
        (ask("a b"), ask("ab")),
        (ask("a"), (Message("assistant", "a"),)),
        (ask("a b"), (*ask("a"), *ask("b"))),
        (ask("b"), (Message("system", "a"), *ask("b"))),
        (ask("a\nuser: b"), (*ask("a"), *ask("b"))),
    ],
)
def test_prompts_that_are_two(one: Messages, other: Messages) -> None:
    assert key_of(one) != key_of(other)


def test_the_split_is_by_the_hash_of_the_prompt() -> None:
    for number in range(200):
        share = int(hashlib.sha256(f"user: question {number}?".encode()).hexdigest()[:16], 16) / 16**16
        expected = "test" if share < 0.08 else "validation" if share < 0.14 else "train"
        assert split_of(ask(f"Question  {number}?"), SHARES) == expected


def test_the_splits_have_their_shares() -> None:
    splits = [split_of(ask(str(number)), SHARES) for number in range(10_000)]
    assert abs(splits.count("test") / 10_000 - 0.08) < 0.012  # 4 standard errors
    assert abs(splits.count("validation") / 10_000 - 0.06) < 0.012


def records(prompt: str, split: Split) -> list[Demonstration | Prompt | Preference]:
    asked = ask(prompt)
    return [Demonstration(asked, "a", split), Prompt(asked, split), Preference(asked, "a", "b", split, "dataset")]


def test_one_split_a_prompt_is_no_leak() -> None:
    refuse_leaks([*records("a", "train"), *records("b", "test"), *records("A ", "train"), *records("c", "validation")])


@pytest.mark.parametrize("other", ["who?", "WHO?", " who?\n"])
@pytest.mark.parametrize("kind", range(3))
def test_a_leak_stops_everything(other: str, kind: int) -> None:
    with pytest.raises(UserError, match=r"^leak between splits: the prompt ") as caught:
        refuse_leaks([records("who?", "train")[0], *records("b", "train"), records(other, "test")[kind]])
    assert "is in train (a demonstration) and in test (a " in str(caught.value)


def test_a_held_out_prompt_in_a_document_stops_everything() -> None:
    refuse_leaking_documents(["who are you . i am i ."], ["where are you ?", "i who", "am you"])
    with pytest.raises(
        UserError, match=r"^leak between splits: document 2 of the corpus has a held-out prompt in it: 'Well"
    ):
        refuse_leaking_documents(["so ?", "Well , WHERE are  you going ?"], ["why ?", "where are you ?"])


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ("大家好，猫住在哪里？猫住在房子里。", True),
        ("她问： 猫住在 哪里", True),
        ("猫住在哪儿？猫住在房子里。", False),
        ("猫住在，哪里的房子", True),
    ],
)
def test_a_held_out_prompt_is_found_where_there_are_no_spaces(document: str, found: bool) -> None:
    assert HeldOut(["猫住在哪里？", "什么是猫？"]).inside(document) == found


@given(st.lists(FEW.filter(lambda text: any(map(str.isalpha, text))), max_size=4), FEW)
def test_held_out_prompts_are_found_as_a_search_word_by_word_finds_them(prompts: list[str], document: str) -> None:
    def words(text: str) -> str:
        return f" {' '.join(word for word in text.lower().split() if word.isalpha())} "

    assert HeldOut(prompts).inside(document) == any(words(prompt) in words(document) for prompt in prompts)
