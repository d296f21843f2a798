"""Somebody else's reward model reads what its own chat template makes of texts; one made here what it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from rlhf.errors import UserError
from rlhf.models.batching import Batching
from rlhf.models.forward import scores_of
from rlhf.models.grading import grade
from rlhf.models.reward import centre_scores, save_reward_model
from rlhf.models.tokens import Example, encode_prompt, encode_response
from rlhf.records import Message, Response
from tests.helpers import ROUNDING, assert_near
from tests.models.test_tokens import bare
from tests.models.tiny_models import CONTEXT, EOS, PAD, engine_settings, make_classifier

CPU = torch.device("cpu")
TOKENS = 40
PROMPT = (Message("system", "be brief"), Message("user", "one two three ?"))
ASKED = [
    (PROMPT, Response("four five six", True, "sft", (1, 2, 3))),
    (PROMPT, Response("seven", False, "sft")),
    (PROMPT[1:], Response("yes .", True, "sft")),
]
# Something stands behind the answer's end, as in many templates; this is where its makers read the score.
TEMPLATE = (
    "{% for m in messages %}{{ 'one ' if m.role == 'user' else 'two ' }}{{ m.content }} </s> no {% endfor %}"
    "{% if add_generation_prompt %}two{% endif %}"
)


@pytest.fixture
def foreign(architecture: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Path:
    """A classifier with a chat template of its own."""
    folder = tmp_path / "foreign"
    save_reward_model(make_classifier(architecture, vocab_size=len(tokenizer)), tokenizer, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


def test_scores_are_stock_transformers_own_of_the_whole_conversation_as_the_template_has_it(foreign: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(foreign)
    model = AutoModelForSequenceClassification.from_pretrained(foreign)
    expected = []
    for prompt, response in ASKED:
        turns = [{"role": m.role, "content": m.content} for m in (*prompt, Message("assistant", response.text))]
        row = tokenizer.apply_chat_template(turns, return_dict=True, return_tensors="pt")
        with torch.no_grad():
            expected.append(float(model(input_ids=row["input_ids"]).logits[0, 0]))
    graded = grade(foreign, CPU, engine_settings(), ASKED)
    assert_near(graded.scores, expected, ROUNDING["float32"])
    assert graded.truncated == 0
    assert len({round(score, 3) for score in graded.scores}) == len(ASKED)


@pytest.fixture
def made_here(architecture: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Path:
    """A reward model whose zero was moved, as the stage `reward` does."""
    model = make_classifier(architecture, vocab_size=len(tokenizer))
    centre_scores(model, torch.tensor([0.5, 1.5]), scale=False)
    save_reward_model(model, tokenizer, tmp_path / "ours")
    return tmp_path / "ours"


def test_a_model_made_here_reads_prompt_and_response_as_in_its_training(
    made_here: Path, architecture: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    examples = [
        Example(encode_prompt(tokenizer, prompt, 99)[0], encode_response(tokenizer, r.text, r.ended)) for prompt, r in ASKED
    ]
    assert [example.response_ids[-1] == EOS for example in examples] == [True, False, True]
    raw = scores_of(make_classifier(architecture, vocab_size=len(tokenizer)), examples, Batching(PAD, TOKENS))
    assert_near(grade(made_here, CPU, engine_settings(), ASKED).scores, raw - 1.0, ROUNDING["float32"])


def test_a_model_without_a_pad_token_scores_rows_of_different_lengths(architecture: str, tmp_path: Path) -> None:
    """The token that its tokenizer is given stands behind all that the model knows."""
    bare(eos_token="<end>").save_pretrained(tmp_path)
    make_classifier(architecture, vocab_size=4, pad_token_id=None, eos_token_id=1, bos_token_id=None).save_pretrained(
        tmp_path
    )
    asked = [((Message("user", "a b " * times),), Response("b", True, "sft")) for times in (1, 5)]
    together = grade(tmp_path, CPU, engine_settings(tokens_per_micro_batch=500), asked).scores
    assert_near(together, [grade(tmp_path, CPU, engine_settings(), [one]).scores[0] for one in asked], ROUNDING["float32"])


def test_what_is_longer_than_the_context_is_cut_on_its_left_and_counted(foreign: Path, made_here: Path) -> None:
    asks_much, says_much = (Message("user", "one " * CONTEXT),), Response("no " * CONTEXT, True, "sft")
    long = [(asks_much, ASKED[0][1]), (PROMPT, says_much)]
    for folder in (foreign, made_here):
        graded = grade(folder, CPU, engine_settings(), [*long, *ASKED])
        assert graded.truncated == 2
        assert_near(graded.scores[2:], grade(folder, CPU, engine_settings(), ASKED).scores, ROUNDING["float32"])


def test_a_classifier_with_two_labels_is_refused_by_their_names(foreign: Path) -> None:
    settings = json.loads((foreign / "config.json").read_text(encoding="utf-8"))
    settings |= {"id2label": {"0": "toxic", "1": "fine"}, "label2id": {"toxic": 0, "fine": 1}}
    (foreign / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        grade(foreign, CPU, engine_settings(), ASKED)
    assert str(caught.value) == (
        f"{foreign}: its config.json has 2 labels (toxic, fine), and a reward model has one: name a sequence classifier "
        "that was trained with one label"
    )


def test_a_template_that_refuses_a_role_is_said(foreign: Path) -> None:
    refusing = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}{{ messages[0].content }}"
    )
    (foreign / "chat_template.jinja").write_text(refusing, encoding="utf-8")
    with pytest.raises(UserError, match="refuses a conversation of the roles system, user, assistant: no system turns"):
        grade(foreign, CPU, engine_settings(), ASKED)


def test_nothing_asked_nothing_scored(foreign: Path) -> None:
    assert grade(foreign, CPU, engine_settings(), []).scores == []
