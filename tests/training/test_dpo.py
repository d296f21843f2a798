"""DPO: pairs of whole responses, against a reference that is asked once."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from transformers import PreTrainedModel

from rlhf.errors import UserError
from rlhf.models.batching import Batching
from rlhf.models.tokens import Example, encode_response
from rlhf.records import Message, Preference
from rlhf.training import dpo
from rlhf.training.dpo import (
    PairedExamples,
    Pairs,
    Reference,
    figures_of,
    implicit_rewards,
    paired_examples,
    train_dpo,
    with_reference,
)
from rlhf.training.loop import LoopState, Passes
from tests.helpers import ROUNDING, SUMMED, assert_near, float64
from tests.maths import twins
from tests.models.tiny_models import EOS, PAD, make_policy, random_examples, words_tokenizer
from tests.training.table import TOKENS, dpo_settings, engine_for

BETA = 0.3


def row_of(pairs: list[tuple[int, int]], seed: int) -> PairedExamples:
    count = 1 + max(i for pair in pairs for i in pair)
    examples = random_examples(count, seed=seed)
    return PairedExamples([Example(examples[0].prompt_ids, e.response_ids) for e in examples], pairs)


ROWS = [row_of([(0, 1)], 1), row_of([(0, 1), (0, 2), (1, 2)], 2), row_of([(1, 0)], 3), row_of([(2, 0), (1, 0)], 4)]


def logp(policy: PreTrainedModel, example: Example) -> float:
    """The sum, not the mean, of a response's token log-probabilities, from one row without padding."""
    with torch.no_grad():
        logits = policy(input_ids=torch.tensor([example.prompt_ids + example.response_ids])).logits[0].double()
    start = len(example.prompt_ids)
    return sum(float(torch.log_softmax(logits[start + t - 1], -1)[token]) for t, token in enumerate(example.response_ids))


def gaps_of(policy: PreTrainedModel, reference: PreTrainedModel, rows: list[PairedExamples]) -> list[float]:
    """How many nats more each pair's chosen response has gained on the reference than its rejected one."""
    gaps = []
    for row in rows:
        gains = [logp(policy, e) - logp(reference, e) for e in row.examples]
        gaps += [gains[chosen] - gains[rejected] for chosen, rejected in row.pairs]
    return gaps


def train(
    policy: PreTrainedModel,
    rows: list[Reference],
    epochs: int = 1,
    lr: float = 1e-2,
    tokens: int = TOKENS,
    label_smoothing: float = 0.0,
    loss: str = "sigmoid",
    **adamw: float,
) -> list[dict[str, float]]:
    passes = Passes(epochs, rows_per_step=len(rows), eval_every_steps=5, seed=1)
    state = LoopState(engine_for(policy, lr, epochs, **adamw))
    settings = dpo_settings(loss=loss, beta=BETA, label_smoothing=label_smoothing)
    first, *rest = train_dpo(state, rows, rows[:2], passes, Batching(PAD, tokens), None, settings)
    assert first["step"] == 0
    return rest


def references(policy: PreTrainedModel) -> list[Reference]:
    return with_reference(policy, ROWS, Batching(PAD, 10_000))


def test_the_reference_gives_each_response_its_sum(architecture: str, precision: str) -> None:
    policy = make_policy(architecture, precision=precision)
    for tokens in (1, 10_000):
        for row, reference in zip(ROWS, with_reference(policy, ROWS, Batching(PAD, tokens)), strict=True):
            assert reference.row is row
            assert_near(reference.logps, float64([logp(policy, e) for e in row.examples]), ROUNDING[precision])


def test_at_the_reference_the_loss_is_ln_2_and_no_reward_is_earned(architecture: str, precision: str) -> None:
    """Exactly, where the reference was asked in the shapes of the step; to rounding in any others."""
    policy = make_policy(architecture, precision=precision)
    longest_first = PairedExamples(sorted(ROWS[1].examples, key=len, reverse=True), [(0, 1), (1, 2)])
    row = train(policy, with_reference(policy, [longest_first], Batching(PAD, 10_000)), tokens=10_000)[0]
    assert [row[name] for name in ("reward_margin", "chosen_reward", "rejected_reward", "accuracy")] == [0.0, 0.0, 0.0, 0.5]
    assert_near(row["loss"], math.log(2), 1e-7)
    other = make_policy(architecture, precision=precision)
    row = train(other, with_reference(other, ROWS, Batching(PAD, 1)), tokens=30)[0]
    assert_near([row["loss"], row["reward_margin"]], float64([math.log(2), 0.0]), ROUNDING[precision])


def test_a_reference_in_another_dtype_is_another_policy(architecture: str) -> None:
    """Why both are loaded in one: the same weights, and a margin before anything is learnt."""
    rounded, exact = (make_policy(architecture, precision=precision) for precision in ("bfloat16", "float32"))
    row = train(rounded, with_reference(exact, ROWS, Batching(PAD, 10_000)), tokens=10_000)[0]
    assert abs(row["reward_margin"]) > 1e-4


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("tokens", [1, 100, 10_000])
def test_the_loss_is_the_mean_over_pairs(architecture: str, precision: str, tokens: int, label_smoothing: float) -> None:
    policy, reference = (make_policy(architecture, seed, precision) for seed in (0, 1))
    margins = [BETA * gap for gap in gaps_of(policy, reference, ROWS)]
    right, wrong = ([twins.nats_of_win(sign * m) for m in margins] for sign in (1, -1))
    row = train(policy, references(reference), tokens=tokens, label_smoothing=label_smoothing)[0]
    assert_near(
        row["loss"], (1 - label_smoothing) * twins.mean(right) + label_smoothing * twins.mean(wrong), ROUNDING[precision]
    )
    assert_near(row["reward_margin"], twins.mean(margins), SUMMED[precision])
    assert_near(row["accuracy"], twins.mean([float(m > 0) for m in margins]))


@pytest.mark.parametrize("tokens", [1, 10_000])
def test_other_losses_are_means_over_pairs_too(tokens: int) -> None:
    policy, reference = make_policy("llama", seed=0), make_policy("llama", seed=1)
    gaps = gaps_of(policy, reference, ROWS)
    expected = {
        "ipo": twins.mean([(gap - 1 / (2 * BETA)) ** 2 for gap in gaps]),
        "hinge": twins.mean([max(0.0, 1 - BETA * gap) for gap in gaps]),
    }
    for loss, mean in expected.items():
        row = train(copy.deepcopy(policy), references(reference), tokens=tokens, loss=loss)[0]
        assert_near(row["loss"], mean, 1e-4)


def test_the_loss_on_validation_takes_labels_as_they_are() -> None:
    """Without the smoothing of what is learnt from, so that losses of other smoothings compare."""
    policy, reference = make_policy("llama", seed=0), make_policy("llama", seed=1)
    passes, settings = Passes(1, len(ROWS), 5, seed=1), dpo_settings(beta=BETA, label_smoothing=0.2)
    rows, batching = references(reference), Batching(PAD, TOKENS)
    expected = twins.mean([twins.nats_of_win(BETA * gap) for gap in gaps_of(policy, reference, ROWS[1:])])
    first = next(train_dpo(LoopState(engine_for(policy)), rows, rows[1:], passes, batching, None, settings))
    assert_near(first["validation_loss"], expected, ROUNDING["float32"])


@pytest.mark.parametrize("tokens", [1, 30, 60, 10_000])
def test_no_pass_has_more_tokens_than_it_may_padding_included(tokens: int) -> None:
    """But for a prompt's responses, which stay together."""
    policy = make_policy("llama")
    rows, shapes = references(policy), []
    policy.register_forward_pre_hook(lambda _m, _a, given: shapes.append(given["input_ids"].shape), with_kwargs=True)
    train(policy, rows, tokens=tokens)
    of_training = [shape for shape in shapes if shape[0] in range(2, 12)]
    most = max(len(r.row.examples) * max(len(e) for e in r.row.examples) for r in rows)
    assert max(rows * width for rows, width in of_training) <= max(tokens, most)
    assert (len(shapes) == 3) is (tokens == 10_000)  # before the step, the step, after it: each in one pass


def test_a_response_in_several_pairs_is_computed_once() -> None:
    policy, rows = make_policy("llama"), []
    watch = lambda _m, _i, given, _o: rows.append(len(given["input_ids"]))  # noqa: E731
    handle = policy.register_forward_hook(watch, with_kwargs=True)
    with_reference(policy, [ROWS[1]], Batching(PAD, 10_000))
    handle.remove()
    assert rows == [3]


def test_the_reference_is_asked_once_and_never_during_training() -> None:
    reference, policy = make_policy("llama", seed=1), make_policy("llama")
    asked: list[int] = []
    reference.register_forward_hook(lambda *_: asked.append(1))
    rows = with_reference(reference, ROWS, Batching(PAD, 10_000))
    assert len(asked) == 1
    before = [r.logps.clone() for r in rows]
    train(policy, rows, epochs=3)
    assert len(asked) == 1
    assert all(torch.equal(a, r.logps) for a, r in zip(before, rows, strict=True))
    assert not any(r.logps.requires_grad for r in rows)


def test_a_policy_learns_what_is_preferred() -> None:
    policy = make_policy("llama")
    rows = train(policy, references(policy), epochs=30)
    assert rows[-1]["accuracy"] == 1.0
    assert rows[-1]["loss"] < 0.2
    assert rows[-1]["chosen_reward"] > rows[-1]["rejected_reward"]
    assert [row["step"] for row in rows if "validation_loss" in row] == [5, 10, 15, 20, 25, 30]
    figures = implicit_rewards(policy, references(make_policy("llama"))[:2], dpo_settings(beta=BETA), Batching(PAD, 1))
    assert_near(rows[-1]["validation_reward_margin"], figures["reward_margin"], 1e-4)


def test_figures_by_hand() -> None:
    pairs = Pairs(
        float64([-1.0, -4.0, -2.0]), float64([-3.0, -1.0, -2.0]), float64([-2.0, -3.0, -1.0]), float64([-2.0, -2.0, -1.0])
    )
    # chosen gains 1, -1, -1; rejected gains -1, 1, -1; margins 2, -2, 0
    expected = {"accuracy": 0.5, "reward_margin": 0.0, "chosen_reward": -0.5 / 3, "rejected_reward": -0.5 / 3}
    expected |= {"chosen_logps": -7 / 3, "rejected_logps": -2.0}
    figures = figures_of([pairs], 0.5)
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert_near(figures[name], value)


def preference(chosen: str, rejected: str, question: str = "one", **changes: bool) -> Preference:
    return Preference((Message("user", question),), chosen, rejected, "train", "gold", **changes)


def test_preferences_of_one_prompt_share_their_responses() -> None:
    tokenizer = words_tokenizer("one two three four five six seven eight")
    paired = paired_examples(
        [
            preference("two", "three"),
            preference("six", "seven", question="two"),
            preference("three", "four five"),
            preference("two", "four five"),
        ],
        tokenizer,
        20,
    )
    assert (len(paired.rows), paired.truncated, paired.dropped) == (2, 0, 0)
    first = paired.rows[0]
    words = [" ".join(tokenizer.convert_ids_to_tokens(e.response_ids)) for e in first.examples]
    assert words == ["two </s>", "three </s>", "four five </s>"]
    assert first.pairs == [(0, 1), (1, 2), (0, 2)]
    assert len({tuple(e.prompt_ids) for e in first.examples}) == 1


def test_a_side_that_was_cut_off_has_no_end_token() -> None:
    tokenizer = words_tokenizer("one two three")
    (row,) = paired_examples([preference("two", "two", rejected_ended=False)], tokenizer, 20).rows
    assert [e.response_ids[-1] == EOS for e in row.examples] == [True, False]
    assert row.pairs == [(0, 1)]


def test_a_prompt_goes_only_if_a_response_leaves_it_no_room() -> None:
    tokenizer = words_tokenizer("one two three four five six seven eight")
    paired = paired_examples(
        [preference("one two three four five six", "two"), preference("two", "three", question="one two three four five")],
        tokenizer,
        max_tokens=7,
    )
    assert (len(paired.rows), paired.truncated, paired.dropped) == (1, 1, 1)
    assert all(len(e) == 7 for e in paired.rows[0].examples)


def test_rows_of_the_next_epoch_come_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Reference] = []
    monkeypatch.setattr(dpo, "_learn", lambda engine, policy, rows, *rest: seen.extend(rows) or {})
    rows = [Reference(ROWS[0], torch.tensor([float(i)])) for i in range(6)]
    state = LoopState(engine_for(make_policy("llama")))
    passes = Passes(epochs=4, rows_per_step=4, eval_every_steps=9, seed=2)
    list(train_dpo(state, rows, [], passes, Batching(PAD, TOKENS), None, dpo_settings()))
    epochs = [[int(r.logps) for r in seen[i : i + 6]] for i in range(0, 24, 6)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert any(a != b for a, b in pairwise(epochs))


def test_the_ids_that_were_sampled_are_learnt_and_not_those_of_their_text() -> None:
    """A model may say a token that its text does not show, here the start token."""
    tokenizer = words_tokenizer("one two three")
    sampled = tuple(tokenizer.convert_tokens_to_ids(["two", "<s>", "three", "</s>"]))
    said = Preference((Message("user", "one"),), "two three", "two", "train", "gold", chosen_token_ids=sampled)
    (row,) = paired_examples([said], tokenizer, 20).rows
    assert [e.response_ids for e in row.examples] == [list(sampled), encode_response(tokenizer, "two")]


def test_responses_of_another_models_tokens_are_refused() -> None:
    ours, theirs = words_tokenizer("one two three"), words_tokenizer("three two one four")
    ids = tuple(encode_response(theirs, "four one"))
    foreign = Preference((Message("user", "one"),), "two", "four one", "train", "gold", rejected_token_ids=ids)
    with pytest.raises(UserError, match="do not spell its text 'four one'"):
        paired_examples([foreign], ours, max_tokens=30)
