"""A reward model that reads both ways scores what stock transformers says of the pair, alone or beside longer ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from rlhf.errors import UserError
from rlhf.models.folder import check_reward_model
from rlhf.models.grading import grade
from rlhf.records import Message, Messages, Response
from tests.helpers import assert_near
from tests.models.tiny_models import engine_settings

CPU = torch.device("cpu")
KINDS: dict[str, tuple[Any, Any]] = {
    "bert": (BertForSequenceClassification, BertConfig),
    "roberta": (RobertaForSequenceClassification, RobertaConfig),
    "deberta": (DebertaV2ForSequenceClassification, DebertaV2Config),
}
CONTEXT = 24
POSITIONS = {"bert": CONTEXT, "roberta": CONTEXT + 2, "deberta": CONTEXT}  # RoBERTa's begin behind the pad token
WORDS = ["[CLS]", "<pad>", "[SEP]", "[UNK]", "one", "two", "three", "four", "five", "six", "seven", "?", "."]
PROMPT = (Message("system", "six"), Message("user", "one two three ?"))
ASKED = [
    (PROMPT, Response("four five six", True, "sft")),
    (PROMPT, Response("seven", False, "sft")),
    (PROMPT[1:], Response("two .", True, "sft", (1, 2))),
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(kind: str, tmp_path: Path) -> Path:
    sizes = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 24, "max_position_embeddings": POSITIONS[kind], "num_labels": 1, "pad_token_id": 1}
    sizes |= {"bos_token_id": 0, "eos_token_id": 2}
    make, settings = KINDS[kind]
    torch.manual_seed(0)
    make(settings(**sizes, initializer_range=0.4)).save_pretrained(tmp_path / kind)
    words_of_pairs(kind).save_pretrained(tmp_path / kind)
    return tmp_path / kind


def words_of_pairs(kind: str) -> PreTrainedTokenizerFast:
    """Knows no end token, as those of encoders do not."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 0), ("[SEP]", 2)]
    )
    inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if kind == "bert" else [])
    special = {"pad_token": "<pad>", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=words, model_input_names=inputs, **special)


def stock_scores(folder: Path, pairs: list[tuple[str, ...]], special: bool = True) -> list[float]:
    """One row at a time, without padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        rows = [tokenizer(*pair, add_special_tokens=special, return_tensors="pt") for pair in pairs]
        return [float(model(**row).logits[0, 0]) for row in rows]


def test_scores_are_stock_transformers_own_of_prompt_and_response_as_a_pair(folder: Path) -> None:
    assert check_reward_model(folder) is False
    expected = stock_scores(
        folder,
        [
            ("six\n\none two three ?", "four five six"),
            ("six\n\none two three ?", "seven"),
            ("one two three ?", "two ."),
        ],
    )
    for tokens in (8, 64):  # a micro-batch: each row alone, or all together
        graded = grade(folder, CPU, engine_settings(tokens_per_micro_batch=tokens), ASKED)
        assert_near(graded.scores, expected, 1e-5)
        assert graded.truncated == 0
    assert len({round(score, 3) for score in graded.scores}) == len(ASKED)


def test_a_chat_template_says_what_is_read_where_there_is_one(folder: Path) -> None:
    template = "[CLS] {% for m in messages %}{{ m.content }} {{ 'seven' if m.role == 'user' else '[SEP]' }} {% endfor %}"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    texts = [
        "[CLS] six [SEP] one two three ? seven four five six [SEP]",
        "[CLS] six [SEP] one two three ? seven seven [SEP]",
        "[CLS] one two three ? seven two . [SEP]",
    ]
    expected = stock_scores(folder, [(text,) for text in texts], special=False)
    assert_near(grade(folder, CPU, engine_settings(), ASKED).scores, expected, 1e-5)


def test_what_is_longer_than_the_context_is_cut_on_its_left_and_counted(folder: Path) -> None:
    """To the last token: the longest pair that fits is not cut, and one more token is."""
    room = CONTEXT - 3 - 1  # around the pair stand three tokens, and the response is one
    asks: list[Messages] = [(Message("user", "two " * extra + "one " * room),) for extra in (0, 1, 40)]
    graded = grade(folder, CPU, engine_settings(), [(prompt, ASKED[1][1]) for prompt in asks])
    assert graded.truncated == 2
    assert_near(graded.scores, stock_scores(folder, [("one " * room, "seven")] * 3), 1e-5)
    says_much = grade(folder, CPU, engine_settings(), [(PROMPT, Response("seven " * 90, True, "sft"))])
    assert says_much.truncated == 1


def test_what_cannot_be_loaded_is_said(folder: Path, kind: str) -> None:
    tokenizer = words_of_pairs(kind)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=f"{folder}: the tokenizer has no pad token"):
        check_reward_model(folder)
    words_of_pairs(kind).save_pretrained(folder)
    KINDS[kind][0](KINDS[kind][1].from_pretrained(folder)).base_model.save_pretrained(folder)
    with pytest.raises(UserError, match=r"of the model's weights are not in its file: classifier\."):
        grade(folder, CPU, engine_settings(), ASKED)


def test_broken_weights_are_said(folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        for weight in model.classifier.parameters():
            weight.fill_(float("nan"))
    model.save_pretrained(folder)
    with pytest.raises(UserError, match="scores are not finite"):
        grade(folder, CPU, engine_settings(), ASKED)


def test_nothing_asked_nothing_scored(folder: Path) -> None:
    assert grade(folder, CPU, engine_settings(), []).scores == []
