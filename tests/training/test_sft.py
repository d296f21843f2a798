"""Supervised learning: the mean over the step's response tokens, end token included, and nothing of the prompt."""

from __future__ import annotations

import copy
import io
import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf.models.batching import Batching
from rlhf.models.policy import load_policy
from rlhf.models.tokens import Example, encode_response, load_tokenizer, pad_id
from rlhf.records import Demonstration, Message
from rlhf.training import sft
from rlhf.training.loop import LoopState, Passes
from rlhf.training.sft import demonstration_examples, document_examples, nll, train_sft
from tests.helpers import SUMMED, assert_near
from tests.models.tiny_models import EOS, PAD, engine_settings, make_policy, random_examples, words_tokenizer
from tests.training.table import TOKENS, engine_for, weights

EXAMPLES = random_examples(8, seed=4)


def token_losses(policy: PreTrainedModel, example: Example) -> list[Tensor]:
    """-log p of every response token, from one row without padding."""
    logits = policy(input_ids=torch.tensor([example.prompt_ids + example.response_ids])).logits[0].float()
    start = len(example.prompt_ids)
    return [-torch.log_softmax(logits[start + t - 1], -1)[token] for t, token in enumerate(example.response_ids)]


def train(
    policy: PreTrainedModel, examples: list[Example], epochs: int = 1, examples_per_step: int = 8, **changes: object
) -> list[dict[str, float]]:
    settings = {"lr": 1e-2, "tokens": TOKENS, "validation": [], "eval_every_steps": 100} | changes
    passes = Passes(epochs, examples_per_step, settings.pop("eval_every_steps"), seed=7)
    batching, validation = Batching(PAD, settings.pop("tokens")), settings.pop("validation")
    state = LoopState(engine_for(policy, settings.pop("lr"), passes.steps(len(examples)), **settings))
    return list(train_sft(state, examples, validation, passes, batching))


def test_a_step_descends_the_mean_over_all_response_tokens(architecture: str, precision: str) -> None:
    """Against the gradient of the definition, row by row: the end token counts, the prompt and the padding do not."""
    policy, twin = (make_policy(architecture, precision=precision) for _ in range(2))
    losses = [loss for example in EXAMPLES for loss in token_losses(twin, example)]
    loss = torch.stack(losses).mean()
    loss.backward()
    norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in twin.parameters() if p.grad is not None))
    (row,) = train(policy, EXAMPLES)
    assert_near(row["loss"], loss, 1e-6 if precision == "float32" else SUMMED[precision])
    assert_near(row["gradient_norm"], norm, 1e-5 if precision == "float32" else SUMMED[precision])
    assert row["response_tokens"] == sum(len(e.response_ids) for e in EXAMPLES)


def test_the_mean_is_not_that_of_the_rows_means() -> None:
    """Or a test of unequal lengths would say nothing."""
    rows = [torch.stack(token_losses(make_policy("llama"), e)).detach() for e in EXAMPLES]
    assert abs(float(torch.cat(rows).mean() - torch.stack([r.mean() for r in rows]).mean())) > 1e-3


def test_every_row_is_learned_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Example] = []

    def spy(engine: object, policy: object, examples: list[Example], batching: object) -> dict[str, float]:
        seen.extend(examples)
        return {}

    monkeypatch.setattr(sft, "_learn", spy)
    assert len(train(make_policy("llama"), EXAMPLES, epochs=3, examples_per_step=5)) == 5  # 24 rows, the last step has 4
    assert len(seen) == 24
    for epoch in range(3):
        assert {id(e) for e in seen[8 * epoch : 8 * epoch + 8]} == {id(e) for e in EXAMPLES}


def test_a_tiny_model_learns_its_examples_by_heart() -> None:
    policy = make_policy("llama")
    before = nll(policy, EXAMPLES[:4], Batching(PAD, TOKENS))
    train(policy, EXAMPLES[:4], epochs=60, examples_per_step=4, lr=3e-2)
    assert before > 2.0
    assert nll(policy, EXAMPLES[:4], Batching(PAD, TOKENS)) < 0.05


def test_validation_is_measured_every_so_often_and_at_the_end() -> None:
    policy = make_policy("llama")
    rows = train(policy, EXAMPLES, epochs=1, examples_per_step=2, validation=EXAMPLES[:3], eval_every_steps=3)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "validation_loss" in row] == [3, 4]
    assert_near(rows[-1]["validation_loss"], nll(policy, EXAMPLES[:3], Batching(PAD, 1)), 1e-6)


def test_nll_is_the_mean_over_tokens_of_all_the_examples() -> None:
    policy = make_policy("gpt2")
    expected = torch.stack([loss for e in EXAMPLES for loss in token_losses(policy, e)]).mean()
    assert_near(nll(policy, EXAMPLES, Batching(PAD, TOKENS)), expected, 1e-6)


def test_stopping_and_going_on_gives_the_same_bits() -> None:
    whole, first, second = (make_policy("llama") for _ in range(3))

    def steps(state: LoopState, count: int) -> list[dict[str, float]]:
        passes = Passes(epochs=3, rows_per_step=4, eval_every_steps=2, seed=7)
        rows = train_sft(state, EXAMPLES, EXAMPLES[:2], passes, Batching(PAD, TOKENS))
        return [next(rows) for _ in range(count)]

    adamw = {"final_lr_share": 0.1, "weight_decay": 0.1}
    expected = steps(LoopState(engine_for(whole, **adamw)), 6)
    stopped = LoopState(engine_for(first, **adamw))
    before = steps(stopped, 3)
    buffer = io.BytesIO()
    torch.save(stopped.state_dict(), buffer)
    resumed = LoopState(engine_for(second, **adamw))
    resumed.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert before + steps(resumed, 3) == expected
    assert torch.equal(weights(second), weights(whole))


def test_demonstrations_that_do_not_fit_are_cut_or_dropped_and_counted() -> None:
    tokenizer = words_tokenizer("one two three four five six seven eight")

    def demonstration(question: str, answer: str) -> Demonstration:
        return Demonstration((Message("user", question),), answer, "train")

    rows = [
        demonstration("one", "two"),  # <s> Human: one Assistant: | two </s>
        demonstration("one two three four five", "six"),  # 8 + 2: the prompt loses 2
        demonstration("one", "one two three four five six seven eight"),  # 9 of response: no room
    ]
    examples = demonstration_examples(rows, tokenizer, max_tokens=8)
    assert (examples.truncated, examples.dropped) == (1, 1)
    words = [" ".join(tokenizer.convert_ids_to_tokens(e.prompt_ids + e.response_ids)) for e in examples.examples]
    assert words == ["<s> Human: one Assistant: two </s>", "one two three four five Assistant: six </s>"]
    assert examples.examples[1].response_ids == [tokenizer.convert_tokens_to_ids("six"), EOS]


def test_a_document_is_a_response_to_the_start_token() -> None:
    tokenizer = words_tokenizer("one two three")
    short, long = document_examples(["one two", "one two three one two three"], tokenizer, max_tokens=5)
    assert short.prompt_ids == long.prompt_ids == [tokenizer.bos_token_id]
    assert tokenizer.convert_ids_to_tokens(short.response_ids) == ["one", "two", "</s>"]
    assert tokenizer.convert_ids_to_tokens(long.response_ids) == ["one", "two", "three", "one"]
    startless = copy.deepcopy(tokenizer)
    startless.bos_token = None
    assert document_examples(["one"], startless, 5)[0].prompt_ids == [EOS]


@pytest.mark.skipif("RLHF_TRIAL_DATA" not in os.environ, reason="RLHF_TRIAL_DATA names no folder with stories260K")
def test_a_real_model_finds_stories_it_has_not_seen_as_likely_as_is_known_of_it() -> None:
    """1.2664 nats a token was measured elsewhere: every token of a story after `<s>`, and no end."""
    folder = Path(os.environ["RLHF_TRIAL_DATA"])
    model, tokenizer = folder / "models" / "stories260K", load_tokenizer(folder / "models" / "stories260K")
    texts = (folder / "text" / "tinystories_sample.txt").read_text(encoding="utf-8").split("<|endoftext|>")
    stories = [encode_response(tokenizer, text.strip(), ended=False) for text in texts if text.strip()]
    assert sum(map(len, stories)) == 1804
    examples = [Example([tokenizer.bos_token_id], ids) for ids in stories]
    policy = load_policy(model, torch.device("cpu"), engine_settings())
    assert nll(policy, examples, Batching(pad_id(tokenizer), 4096)) == pytest.approx(1.2664, abs=5e-5)
