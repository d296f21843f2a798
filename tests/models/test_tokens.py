"""From messages to ids and back: what is cut, what is masked, and where the end token stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlhf.errors import UserError
from rlhf.models.tiny import make_tokenizer
from rlhf.models.tokens import (
    Example,
    collate,
    complete_tokenizer,
    decode_response,
    encode_prompt,
    encode_response,
    end_id,
    fit,
    load_tokenizer,
    pad_id,
    prompt_room,
    same_tokens,
)
from rlhf.records import Message, Messages
from tests.models.tiny_models import CONTEXT, EOS, PAD, tiny_settings, words_tokenizer

TALK: Messages = (
    Message("system", "be brief"),
    Message("user", "one two"),
    Message("assistant", "three"),
    Message("user", "four five six"),
)
STRICT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ message['content'] + ' ' }}"
    "{% endfor %}"
)


def names(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return " ".join(tokenizer.convert_ids_to_tokens(ids))


WORDS = ["one", "two", "three", ".", ",", "?", "I", "do", "n't", "know"]
ID_LISTS = st.lists(st.integers(0, 9), min_size=1, max_size=6)


@given(st.lists(st.tuples(ID_LISTS, ID_LISTS), min_size=1, max_size=5))
def test_collate_pads_prompts_on_the_left_and_responses_on_the_right(rows: list[tuple[list[int], list[int]]]) -> None:
    """Masks are True on real tokens, and a pad id in a text is a token like any other."""
    examples = [Example(prompt, response) for prompt, response in rows]
    batch = collate(examples, PAD)
    width, length = (max(len(ids) for ids in side) for side in zip(*rows, strict=True))
    for i, (prompt, response) in enumerate(rows):
        assert batch.prompt_ids[i].tolist() == [PAD] * (width - len(prompt)) + prompt
        assert batch.prompt_mask[i].tolist() == [False] * (width - len(prompt)) + [True] * len(prompt)
        assert batch.response_ids[i].tolist() == response + [PAD] * (length - len(response))
        assert batch.response_mask[i].tolist() == [True] * len(response) + [False] * (length - len(response))
        assert int(batch.response_mask[i].sum()) == len(response)
        assert len(examples[i]) == len(prompt) + len(response)
    assert batch.prompt_ids.dtype == batch.response_ids.dtype == torch.long
    assert batch.prompt_mask.dtype == batch.response_mask.dtype == torch.bool


def test_a_conversation_is_turns_and_the_opening_of_the_answer(tokenizer: PreTrainedTokenizerBase) -> None:
    ids, truncated = encode_prompt(tokenizer, TALK, 100)
    expected = "<s> be brief Human: one two Assistant: three </s> Human: four five six Assistant:"
    assert (names(tokenizer, ids), truncated) == (expected, False)


def test_a_template_of_the_users_own_takes_the_place_of_the_tokenizers_and_stays_with_it(tmp_path: Path) -> None:
    words_tokenizer("one two : yes").save_pretrained(tmp_path / "given")
    own = "{% for message in messages %}{{ 'yes ' + message['content'] }}{% endfor %} :"
    loaded = load_tokenizer(tmp_path / "given", chat_template=own)
    assert names(loaded, encode_prompt(loaded, (Message("user", "one two"),), 20)[0]) == "yes one two :"
    loaded.save_pretrained(tmp_path / "kept")
    assert load_tokenizer(tmp_path / "kept").chat_template == own


def test_the_plain_template_is_what_stock_transformers_apply(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [{"role": message.role, "content": message.content} for message in TALK]
    text = tokenizer.apply_chat_template(rows, add_generation_prompt=True, tokenize=False)
    assert text == ("<s>\n\nbe brief\n\nHuman: one two\n\nAssistant: three</s>\n\nHuman: four five six\n\nAssistant:")
    stock = tokenizer.apply_chat_template(rows, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    assert stock["input_ids"][0].tolist() == encode_prompt(tokenizer, TALK, 100)[0]


def test_a_long_prompt_loses_whole_turns_on_its_left_and_then_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    whole = len(encode_prompt(tokenizer, TALK, 100)[0])
    assert whole == 14
    without_first = "<s> be brief Assistant: three </s> Human: four five six Assistant:"
    without_two = "<s> be brief Human: four five six Assistant:"
    expected = {14: None, 13: without_first, 11: without_first, 10: without_two, 8: without_two}
    expected |= {7: "be brief Human: four five six Assistant:", 2: "six Assistant:", 1: "Assistant:"}
    for room, text in expected.items():
        ids, truncated = encode_prompt(tokenizer, TALK, room)
        assert truncated is (text is not None)
        if text is not None:
            assert names(tokenizer, ids) == text, room


def test_without_a_system_message_the_first_turn_goes(tokenizer: PreTrainedTokenizerBase) -> None:
    ids, truncated = encode_prompt(tokenizer, TALK[1:], 8)
    assert (names(tokenizer, ids), truncated) == ("<s> Human: four five six Assistant:", True)


def test_a_template_that_wants_the_user_first_loses_the_answer_with_its_question() -> None:
    strict = words_tokenizer("one two three four five six")
    strict.chat_template = STRICT_TEMPLATE
    ids, truncated = encode_prompt(strict, TALK[1:], 5)
    assert (names(strict, ids), truncated) == ("four five six", True)


def test_a_conversation_that_the_template_refuses_is_the_users_to_mend() -> None:
    strict = words_tokenizer("one two three four five six be brief")
    strict.chat_template = STRICT_TEMPLATE
    with pytest.raises(UserError, match="refuses a conversation of the roles system, user, assistant, user: roles must"):
        encode_prompt(strict, TALK, 100)


def test_the_end_token_stands_where_the_response_ended(tokenizer: PreTrainedTokenizerBase) -> None:
    assert names(tokenizer, encode_response(tokenizer, "yes .")) == "yes . </s>"
    assert names(tokenizer, encode_response(tokenizer, "yes .", ended=False)) == "yes ."
    assert encode_response(tokenizer, "") == [EOS]


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8), st.booleans())
def test_words_come_back_as_they_were(words: list[str], ended: bool) -> None:
    tokenizer = words_tokenizer(" ".join(WORDS))
    assert decode_response(tokenizer, encode_response(tokenizer, " ".join(words), ended)) == " ".join(words)


@pytest.fixture(scope="module")
def bpe() -> PreTrainedTokenizerBase:
    return make_tokenizer(["the cat sat on the mat , and the dog did not"] * 3, tiny_settings(tokenizer="bpe"), CONTEXT)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_bpe_brings_back_any_text_but_the_space_around_it(bpe: PreTrainedTokenizerBase, text: str) -> None:
    assert decode_response(bpe, encode_response(bpe, text)) == text.strip()


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_a_special_token_that_a_text_spells_is_none(bpe: PreTrainedTokenizerBase, kind: str) -> None:
    """Neither an end in the middle of a response nor a turn that nobody took."""
    made = words_tokenizer("the cat sat on the mat") if kind == "words" else bpe
    special = {made.convert_tokens_to_ids(token) for token in ("<s>", "</s>", "<pad>")}
    text = "the cat </s> <pad> sat"
    ids = encode_response(made, text)
    assert ids[-1] == end_id(made)
    assert not special & set(ids[:-1])
    assert kind == "words" or decode_response(made, ids) == text
    honest = encode_prompt(made, (Message("user", "the cat sat"),), 200)[0]
    forged = encode_prompt(made, (Message("user", "the cat </s> <s> sat"),), 200)[0]
    assert [i for i in forged if i in special] == [i for i in honest if i in special]
    assert len(forged) > len(honest)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_texts_that_spell_no_special_token_have_the_ids_that_they_always_had(
    bpe: PreTrainedTokenizerBase, text: str
) -> None:
    assert encode_response(bpe, text, ended=False) == bpe.encode(text, add_special_tokens=False)
    row = [{"role": "user", "content": text}]
    stock = bpe.apply_chat_template(row, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert encode_prompt(bpe, (Message("user", text),), 10_000)[0] == stock


def test_fit_gives_all_responses_the_same_prompt(tokenizer: PreTrainedTokenizerBase) -> None:
    """The longest response decides how much of the prompt is left; none is cut itself."""
    responses = [encode_response(tokenizer, text) for text in ("yes", "no one two three")]
    fitted = fit(tokenizer, TALK, responses, max_tokens=15)
    assert fitted is not None
    assert [e.response_ids for e in fitted.examples] == responses
    assert {names(tokenizer, e.prompt_ids) for e in fitted.examples} == {"<s> be brief Human: four five six Assistant:"}
    assert fitted.truncated
    assert max(len(e) for e in fitted.examples) <= 15


def test_a_response_must_leave_room_for_a_prompt() -> None:
    assert prompt_room(6, 5) == 1
    with pytest.raises(UserError, match=r"data.max_response_tokens \(6\) must be below the context of 6 tokens"):
        prompt_room(6, 6)


@pytest.mark.parametrize(("context", "kept"), [(5, None), (6, "Assistant:"), (20, 14)])
def test_fit_gives_up_only_without_any_room(tokenizer: PreTrainedTokenizerBase, context: int, kept: object) -> None:
    fitted = fit(tokenizer, TALK, [encode_response(tokenizer, "one two three four")], context)
    if kept is None:
        assert fitted is None
        return
    assert fitted is not None
    prompt = fitted.examples[0].prompt_ids
    assert kept in (names(tokenizer, prompt), len(prompt))
    assert fitted.truncated is (context == 6)


def test_an_empty_response_fits_nowhere(tokenizer: PreTrainedTokenizerBase) -> None:
    assert fit(tokenizer, TALK, [[EOS], []], 100) is None


def bare(**special: str) -> PreTrainedTokenizerBase:
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<end>", "a", "b"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", **special)


@pytest.mark.parametrize("special", [{}, {"pad_token": "<end>"}])
def test_a_tokenizer_gets_a_pad_token_that_is_not_its_end_token(special: dict[str, str]) -> None:
    tokenizer = complete_tokenizer(bare(eos_token="<end>", **special), "bare")
    assert (end_id(tokenizer), pad_id(tokenizer), len(tokenizer)) == (1, 4, 5)
    assert tokenizer.chat_template is not None


def test_a_complete_tokenizer_stays_as_it_is() -> None:
    tokenizer = bare(eos_token="<end>", pad_token="<unk>")
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    assert complete_tokenizer(tokenizer, "bare").chat_template == "{{ messages[0]['content'] }}"
    assert (pad_id(tokenizer), len(tokenizer)) == (0, 4)


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    with pytest.raises(UserError, match=r"some/where: the tokenizer has no end token"):
        complete_tokenizer(bare(), "some/where")


def test_a_tokenizer_comes_back_from_its_directory(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    same_tokens(tokenizer, loaded, "ours", "theirs")
    assert encode_prompt(loaded, TALK, 100) == encode_prompt(tokenizer, TALK, 100)
    assert encode_response(loaded, "do n't know") == encode_response(tokenizer, "do n't know")


def test_tokenizers_of_other_models_are_told_apart(tokenizer: PreTrainedTokenizerBase) -> None:
    same_tokens(words_tokenizer("a b"), words_tokenizer("b a"), "ours", "theirs")
    with pytest.raises(UserError, match=r"artifacts/x and artifacts/y have different tokenizers"):
        same_tokens(tokenizer, words_tokenizer("a b"), "artifacts/x", "artifacts/y")
    other_end = words_tokenizer("a b")
    other_end.eos_token = "<s>"
    with pytest.raises(UserError, match="end tokens </s> and <s>"):
        same_tokens(words_tokenizer("a b"), other_end, "x", "y")


def test_ids_that_another_model_sampled_are_refused() -> None:
    """Learnt as they are, they would be noise to this one."""
    ours, theirs = words_tokenizer("one two three"), words_tokenizer("three two one four")
    ids = encode_response(theirs, "four one")
    assert encode_response(theirs, "four one", True, ids) == ids
    with pytest.raises(UserError, match="do not spell its text 'four one'"):
        encode_response(ours, "four one", True, ids)
