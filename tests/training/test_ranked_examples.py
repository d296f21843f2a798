"""Rankings as token ids: what is one response and what two, what fits, and that what was sampled is what is read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlhf.errors import UserError
from rlhf.models.tokens import encode_response
from rlhf.records import Message, Ranking, Response, Responses
from rlhf.training.reward import ranked_examples, sampled_examples
from tests.models.tiny_models import EOS, words_tokenizer

QUESTION = (Message("user", "one"),)


def ranking(*answers: tuple[str, int], split: str = "train", ended: bool = True) -> Ranking:
    responses = tuple(Response(text, ended, "sft") for text, _ in answers)
    return Ranking(QUESTION, responses, tuple(rank for _, rank in answers), split, "gold")


def test_rankings_become_ids_and_equal_texts_one_response() -> None:
    tokenizer = words_tokenizer("one two three four five six")
    rows = ranked_examples(
        [
            ranking(("two", 1), ("three four", 0), ("two", 1)),
            ranking(("two", 1), ("three", 1)),
            ranking(("two", 0), ("two", 0)),
            ranking(("one two three four five six", 0), ("two", 1)),
        ],
        tokenizer,
        max_tokens=7,
    )
    assert (len(rows.rows), rows.tied, rows.dropped, rows.truncated) == (1, 2, 1, 0)
    (row,) = rows.rows
    assert row.ranks == [1, 0]
    (kept,) = rows.rankings
    assert ([r.text for r in kept.responses], kept.ranks) == (["two", "three four"], (1, 0))
    assert [tokenizer.convert_ids_to_tokens(e.response_ids) for e in row.examples] == [
        ["two", "</s>"],
        ["three", "four", "</s>"],
    ]
    assert row.examples[0].prompt_ids == row.examples[1].prompt_ids


def test_a_response_that_did_not_end_has_no_end_token_and_is_another_response() -> None:
    tokenizer = words_tokenizer("one two three")
    ended, cut_off = Response("two", True, "sft"), Response("two", False, "sft")
    rows = ranked_examples([Ranking(QUESTION, (ended, cut_off), (0, 1), "train", "gold")], tokenizer, 20)
    assert [e.response_ids[-1] == EOS for e in rows.rows[0].examples] == [True, False]


def test_a_margin_of_the_data_is_learnt() -> None:
    tokenizer = words_tokenizer("one two three")
    without = ranking(("two", 1), ("three", 0))
    rows = ranked_examples([replace(without, margin=0.5), without], tokenizer, 20).rows
    assert [row.margin for row in rows] == [0.5, 0.0]


def test_the_zero_is_measured_on_the_sft_models_train_responses() -> None:
    tokenizer = words_tokenizer("one two three four")
    answers = (Response("two", True, "sft"), Response("three", True, "base"), Response("four", False, "sft"))
    rows = [Responses(QUESTION, answers, "train"), Responses(QUESTION, answers, "test")]
    sampled = sampled_examples(rows, tokenizer, 20)
    assert [tokenizer.convert_ids_to_tokens(e.response_ids) for e in sampled] == [["two", "</s>"], ["four"]]


def test_the_ids_that_were_sampled_are_read_and_not_those_of_their_text() -> None:
    """A model may say a token that its text does not show, here the start token."""
    tokenizer = words_tokenizer("one two three")
    sampled = tuple(tokenizer.convert_tokens_to_ids(["two", "<s>", "three", "</s>"]))
    said = Response("two three", True, "sft", sampled)
    (row,) = ranked_examples(
        [Ranking(QUESTION, (said, Response("two", True, "sft")), (0, 1), "train", "gold")], tokenizer, 20
    ).rows
    assert [e.response_ids for e in row.examples] == [list(sampled), encode_response(tokenizer, "two")]
    (example,) = sampled_examples([Responses(QUESTION, (said,), "train")], tokenizer, 20)
    assert example.response_ids == list(sampled)


def test_responses_of_another_models_tokens_are_refused() -> None:
    ours, theirs = words_tokenizer("one two three"), words_tokenizer("three two one four")
    foreign = Response("four one", True, "sft", tuple(encode_response(theirs, "four one")))
    ranking = Ranking(QUESTION, (foreign, Response("two", True, "sft")), (0, 1), "train", "gold")
    with pytest.raises(UserError, match="do not spell its text 'four one'"):
        ranked_examples([ranking], ours, max_tokens=30)
