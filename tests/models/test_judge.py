"""A judge whose next words are known by heart: its odds are the table's, and what it cannot read is no verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlhf.errors import UserError
from rlhf.models.judge import check_judge, load_judge, log_odds
from rlhf.models.policy import save_policy
from rlhf.models.tokens import encode_prompt
from rlhf.records import Message
from tests.helpers import ROUNDING, assert_near
from tests.models.tiny_models import CONTEXT, bigram_policy, engine_settings, make_policy, words_tokenizer

CPU = torch.device("cpu")
TOKENS = 60  # a micro-batch: some questions stand beside others, some alone


@pytest.fixture(scope="module")
def judges_tokenizer() -> PreTrainedTokenizerBase:
    """An even number of words, as `bigram_policy` needs."""
    made = words_tokenizer("A B who is right ? this one that")
    return made if len(made) % 2 == 0 else words_tokenizer("A B who is right ? this one that then")


def test_odds_are_those_of_the_words_after_the_prompts_last_one(judges_tokenizer: PreTrainedTokenizerBase) -> None:
    size = len(judges_tokenizer)
    table = torch.randn(size, size, generator=torch.Generator().manual_seed(1))
    vocabulary = judges_tokenizer.get_vocab()
    after = table[vocabulary["Assistant:"]]
    questions = ["who is right ?", "who ?", "this " * 30, "is that one right ?"]
    odds = log_odds(bigram_policy(table), judges_tokenizer, questions, TOKENS)
    assert_near(odds, [float(after[vocabulary["A"]] - after[vocabulary["B"]])] * 4, 1e-4)


def test_odds_follow_the_question_and_not_the_company(judges_tokenizer: PreTrainedTokenizerBase, architecture: str) -> None:
    judge = make_policy(architecture, vocab_size=len(judges_tokenizer))
    questions = ["who is right ?", "this one ?", "that " * 20, "who ?"]
    together = log_odds(judge, judges_tokenizer, questions, TOKENS)
    assert_near(together, [log_odds(judge, judges_tokenizer, [one], TOKENS)[0] for one in questions], ROUNDING["float32"])
    assert len({round(one, 3) for one in together if one is not None}) == 4


def test_a_question_that_does_not_fit_has_no_verdict(judges_tokenizer: PreTrainedTokenizerBase) -> None:
    judge = make_policy("llama", vocab_size=len(judges_tokenizer))
    around = 3  # <s>, Human: and Assistant:
    fits = "this " * (CONTEXT - around - 1)
    odds = log_odds(judge, judges_tokenizer, [fits, f"{fits} one", "who ?"], TOKENS)
    assert [one is None for one in odds] == [False, True, False]


def test_nothing_asked_nothing_said(judges_tokenizer: PreTrainedTokenizerBase) -> None:
    assert log_odds(make_policy("llama", vocab_size=len(judges_tokenizer)), judges_tokenizer, [], TOKENS) == []


def test_a_judge_in_a_folder_is_looked_at_and_loaded(judges_tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    made = make_policy("llama", vocab_size=len(judges_tokenizer))
    expected = log_odds(made, judges_tokenizer, ["who is right ?"], TOKENS)
    save_policy(made, judges_tokenizer, tmp_path, 9)
    check_judge(tmp_path)
    judge, tokenizer = load_judge(tmp_path, CPU, engine_settings())
    assert log_odds(judge, tokenizer, ["who is right ?"], TOKENS) == expected


def test_a_judge_that_does_not_know_the_letters_is_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    save_policy(make_policy("llama", vocab_size=len(tokenizer)), tokenizer, tmp_path, 9)
    with pytest.raises(UserError, match=f"{tmp_path}: its tokenizer has no tokens for the verdicts A and B, so this model"):
        check_judge(tmp_path)


def test_a_judge_without_a_pad_token_whose_verdicts_differ_in_length(architecture: str, tmp_path: Path) -> None:
    """The token that its tokenizer is given stands behind all that the model knows."""
    words = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["<unk>", "<end>", "A", "b", "c", "?"])}, unk_token="<unk>")
    )
    words.normalizer = normalizers.Replace("B", "b c")
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<end>").save_pretrained(tmp_path)
    made = make_policy(architecture, vocab_size=6, pad_token_id=None, eos_token_id=1, bos_token_id=None)
    made.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token_id is None
    check_judge(tmp_path)
    judge, tokenizer = load_judge(tmp_path, CPU, engine_settings())

    def logp(ids: list[int], verdict: list[int]) -> float:
        with torch.no_grad():
            said = torch.log_softmax(made(input_ids=torch.tensor([ids + verdict])).logits[0].double(), -1)
        return sum(float(said[len(ids) - 1 + place, token]) for place, token in enumerate(verdict))

    questions = ["b ? c", "c", "b b b b ?"]
    asked = [encode_prompt(tokenizer, (Message("user", question),), 99)[0] for question in questions]
    expected = [logp(ids, [2]) - logp(ids, [3, 4]) for ids in asked]
    assert_near(log_odds(judge, tokenizer, questions, 1000), expected, 1e-4)
