"""A model made here: the same for the same seed, of the sizes asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.data.words import join_words, split_words
from rlhf.data.world import load_world
from rlhf.errors import UserError
from rlhf.models.policy import without_dropout
from rlhf.models.tiny import make_model, make_tokenizer
from rlhf.models.tokens import decode_response, encode_prompt, encode_response, load_tokenizer, prompt_room
from rlhf.records import Message
from rlhf.runtime import settings as runtime_settings
from tests.helpers import assert_near
from tests.models.tiny_models import CONTEXT, SPREAD, tiny_settings, words_tokenizer

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["the cat sat", "the dog sat , too", "a cat ran"]
MIXED = "ab 猫 鼠 ， 。 “ , c1"


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_a_tokenizer_depends_on_its_texts_alone(kind: str) -> None:
    settings = tiny_settings(tokenizer=kind)
    once, again = make_tokenizer(TEXTS, settings, CONTEXT), make_tokenizer(TEXTS, settings, CONTEXT)
    assert once.get_vocab() == again.get_vocab()
    assert once.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    assert [once.pad_token_id, once.bos_token_id, once.eos_token_id, once.unk_token_id] == [0, 1, 2, 3]
    assert once.chat_template


def test_words_have_ids_in_alphabetical_order_whatever_the_order_of_the_texts() -> None:
    settings = tiny_settings()
    vocabulary = make_tokenizer(TEXTS, settings, CONTEXT).get_vocab()
    assert vocabulary == make_tokenizer(TEXTS[::-1], settings, CONTEXT).get_vocab()
    by_id = sorted(vocabulary, key=lambda word: vocabulary[word])
    special = ["<pad>", "<s>", "</s>", "<unk>", "Human:", "Assistant:"]
    assert by_id == [*special, ",", "a", "cat", "dog", "ran", "sat", "the", "too"]


def test_an_unknown_word_is_unknown_and_known_ones_stay_whole() -> None:
    tokenizer = words_tokenizer("cat catalogue")
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("catalogue zebra")) == ["catalogue", "<unk>"]


def test_words_with_spaces_are_read_and_written_as_they_always_were() -> None:
    made = json.loads(make_tokenizer(TEXTS, tiny_settings(), CONTEXT).backend_tokenizer.to_str())
    assert (made["pre_tokenizer"], made["decoder"]) == ({"type": "WhitespaceSplit"}, None)


@given(st.text(st.sampled_from("ab猫鼠，。“,c1 \n"), max_size=30))
def test_where_there_are_no_spaces_tokens_are_characters(text: str) -> None:
    tokenizer = words_tokenizer(f"{MIXED} {text}")
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(ids) == split_words(text)
    assert tokenizer.decode(ids) == join_words(split_words(text))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_world_fits_the_model_that_is_made_for_it_to_the_byte(language: str, tmp_path: Path) -> None:
    composed = runtime_settings.compose(ROOT, [f"data.language={language}"])
    config = runtime_settings.validate(runtime_settings.values_of(composed))
    limits, context = config.data, config.model.max_tokens
    world = load_world(ROOT / limits.path)
    asked = world.prompts(2000, seed=0)
    answers, documents = [answer for _, answer in world.demonstrations(asked, 2000, seed=1)], world.corpus(2000, seed=2)
    assert config.model.tiny
    made = make_tokenizer([*asked, *answers, *documents], config.model.tiny, context)
    made.save_pretrained(tmp_path)
    for tokenizer in (made, load_tokenizer(tmp_path)):
        for text in (*asked, *answers, *documents):
            assert decode_response(tokenizer, encode_response(tokenizer, text)) == text
    room = prompt_room(context, limits.max_response_tokens)
    assert not [text for text in asked if encode_prompt(made, (Message("user", text),), room)[1]]
    assert max(len(encode_response(made, text)) for text in answers) <= limits.max_response_tokens
    assert max(len(encode_response(made, text)) for text in documents) < context


def test_more_words_than_the_vocabulary_holds_are_an_error() -> None:
    assert len(make_tokenizer(["a b c d"], tiny_settings(vocabulary=10), CONTEXT)) == 10
    with pytest.raises(UserError, match=r"model.tiny.vocabulary \(10\) must be at least .* \(11\)"):
        make_tokenizer(["a b c d e"], tiny_settings(vocabulary=10), CONTEXT)


def test_bpe_keeps_to_its_vocabulary() -> None:
    assert len(make_tokenizer(TEXTS * 5, tiny_settings(tokenizer="bpe", vocabulary=270), CONTEXT)) <= 270


def test_the_same_seed_makes_the_same_model_and_leaves_other_chance_alone() -> None:
    tokenizer, settings = words_tokenizer("a b c"), tiny_settings()
    torch.manual_seed(123)
    before = torch.get_rng_state()
    once = make_model(tokenizer, settings, CONTEXT, 5, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again, other = make_model(tokenizer, settings, CONTEXT, 5, CPU), make_model(tokenizer, settings, CONTEXT, 6, CPU)
    same = [torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(once.get_input_embeddings().weight, other.get_input_embeddings().weight)


def test_a_model_has_the_sizes_and_special_tokens_of_its_settings() -> None:
    tokenizer = words_tokenizer("a b c")
    model = make_model(tokenizer, tiny_settings(hidden_size=64), CONTEXT, 0, CPU)
    sizes = model.config
    assert (sizes.vocab_size, sizes.hidden_size, sizes.num_hidden_layers) == (len(tokenizer), 64, 2)
    assert (sizes.intermediate_size, sizes.num_attention_heads, sizes.max_position_embeddings) == (24, 4, CONTEXT)
    assert (sizes.eos_token_id, sizes.pad_token_id, sizes.bos_token_id) == (2, 0, 1)
    weights = model.model.layers[0].self_attn.q_proj.weight
    assert_near(weights.std(), SPREAD, 0.05)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    ids = torch.tensor([[4, 5]])
    assert torch.equal(without_dropout(model.train())(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
