"""Answers that are kept to be read: those of the looks that the figures are of, and a page of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf.models.batching import Batching
from rlhf.models.tokens import encode_response
from rlhf.records import Message
from rlhf.training.dpo import Reference, train_dpo, with_reference
from rlhf.training.loop import LoopState, Passes, Said
from rlhf.training.ppo import train_ppo
from rlhf.training.ppo_state import Environment, PPOState, model_of, policy_of
from rlhf.training.samples import PAGE, samples_page, write_samples
from rlhf.training.watch import Watch, look
from tests.models.tiny_models import PAD, make_policy, words_tokenizer
from tests.training.table import SHARED, dpo_settings, engine_for, environment_for, ppo_settings, ppo_table
from tests.training.test_dpo import ROWS

ASKED = [(Message("user", "one ?"),), (Message("system", "be brief"), Message("user", "two | three"))]

BATCHING = Batching(PAD, 1000)
PASSES = Passes(3, rows_per_step=len(ROWS), eval_every_steps=2, seed=1)


def table_with_shown(**changes: Any) -> tuple[PPOState, Environment]:
    state, environment = ppo_table(ppo_settings(**changes))
    return state, replace(environment, watch=replace(environment.watch, shown=ASKED))


@pytest.mark.parametrize("critic", [{}, SHARED], ids=["separate", "shared"])
def test_ppo_keeps_the_first_answers_of_every_evaluation(critic: dict[str, Any]) -> None:
    settings = ppo_settings(eval_every_steps=2, **critic)
    state, environment = table_with_shown(**critic)
    looks, scores = [], []
    for row in train_ppo(state, environment, settings):
        if "validation_score" in row:
            looks.append(look(policy_of(state), environment.watch))
            scores.append(row["validation_score"])
    assert [then.step for then in state.said] == [0, 2, 3]
    for then, seen, score in zip(state.said, looks, scores, strict=True):
        assert then.answers == [e.response_ids for e in seen.examples[:2]]
        assert list(then.scores) == ["score"]
        assert len(then.scores["score"]) == 2
        assert score != then.scores["score"][0]
    assert state.said[0].answers != state.said[-1].answers


def test_the_gold_score_stands_beside_the_reward_models() -> None:
    state, environment = table_with_shown()
    environment = replace(environment, watch=replace(environment.watch, judge=lambda _: [3.0, 4.0, 5.0, 6.0]))
    next(iter(train_ppo(state, environment, ppo_settings())))
    assert list(state.said[0].scores) == ["score", "gold_score"]
    assert state.said[0].scores["gold_score"] == [3.0, 4.0]


def test_what_was_said_survives_a_stop() -> None:
    state, environment = table_with_shown()
    rows = train_ppo(state, environment, ppo_settings())
    for _ in range(2):
        next(rows)
    again, _ = table_with_shown()
    again.load_state_dict(copy.deepcopy(state.state_dict()))
    assert again.said == state.said
    assert len(again.said) == 2


def test_a_run_that_goes_on_after_its_first_look_does_not_look_twice() -> None:
    state, environment = table_with_shown()
    next(train_ppo(state, environment, ppo_settings()))
    again, environment = table_with_shown()
    again.load_state_dict(copy.deepcopy(state.state_dict()))
    assert [row["step"] for row in train_ppo(again, environment, ppo_settings())] == [1, 2, 3]
    assert [then.step for then in again.said] == [0, 1, 2, 3]


def dpo_with_shown() -> tuple[LoopState, list[Reference], Watch]:
    policy = make_policy("llama")
    watch = replace(environment_for(policy, make_policy("llama", seed=1)).watch, shown=ASKED[:1])
    return LoopState(engine_for(policy, 1e-2, 3)), with_reference(policy, ROWS, BATCHING), watch


def test_without_validation_pairs_dpo_still_says_what_it_answers() -> None:
    state, rows, watch = dpo_with_shown()
    told = list(train_dpo(state, rows, [], PASSES, BATCHING, watch, dpo_settings()))
    assert [row["step"] for row in told if "validation_ended" in row] == [0, 2, 3]
    assert [row["step"] for row in told if "validation_loss" in row] == []
    assert [then.step for then in state.said] == [0, 2, 3]


def test_dpo_keeps_what_the_policy_says_before_and_at_every_evaluation() -> None:
    state, rows, watch = dpo_with_shown()
    policy = model_of(state.engine)
    before = look(policy, watch).examples[0].response_ids
    told = list(train_dpo(state, rows, rows[:2], PASSES, BATCHING, watch, dpo_settings()))
    assert [then.step for then in state.said] == [0, 2, 3]
    assert [row["step"] for row in told if "validation_ended" in row] == [0, 2, 3]
    assert state.said[0].answers == [before]
    assert state.said[-1].answers == [look(policy, watch).examples[0].response_ids]


def test_the_page_by_hand(tmp_path: Path) -> None:
    tokenizer = words_tokenizer("one two three ? | yes no be brief")
    yes, no = (encode_response(tokenizer, text) for text in ("yes", "no no |"))
    told = [Said(0, [no, yes], {"score": [-1.0, 0.5], "gold_score": [0.0, 1.25]})]
    told.append(Said(5, [yes, []], {"score": [2.0, 0.125], "gold_score": [1.0, -3.0]}))
    expected = """# What the policy answers while it learns

> **user** one ?

| step | answer | tokens | score | gold score |
| --- | --- | --- | --- | --- |
| 0 | no no \\| | 4 | -1.00 | 0.00 |
| 5 | yes | 2 | 2.00 | 1.00 |

> **system** be brief
>
> **user** two \\| three

| step | answer | tokens | score | gold score |
| --- | --- | --- | --- | --- |
| 0 | yes | 2 | 0.50 | 1.25 |
| 5 | *(nothing)* | 0 | 0.12 | -3.00 |
"""
    assert samples_page(told, ASKED, tokenizer) == expected
    assert [write_samples(tmp_path, told, ASKED, tokenizer, step) for step in (4.0, 6.0)] == [None, None]
    assert write_samples(tmp_path, told, [], tokenizer, 5.0) is None
    assert not list(tmp_path.iterdir())
    assert write_samples(tmp_path, told, ASKED, tokenizer, 5.0) == tmp_path / PAGE
    assert (tmp_path / PAGE).read_text() == expected
