"""A whole evaluation of two tiny models: every figure is where it should be, and is what its definition says."""

from __future__ import annotations

import json
from itertools import count
from math import log
from typing import Any

import numpy as np
import pytest
import torch

from rlhf.data.world import World
from rlhf.errors import UserError
from rlhf.evaluation import report
from rlhf.evaluation.answers import SAMPLED, Answers, Contestant, best_of
from rlhf.evaluation.contest import contestants_in
from rlhf.evaluation.exam import set_exam
from rlhf.evaluation.figures import Yardstick
from rlhf.evaluation.raters import GOLD_FIGURES, by_world
from rlhf.records import Prompt
from tests.evaluation.conftest import PROMPTS, RESPONSE_TOKENS, Table, everybody, of
from tests.labeling.records import KnownRater

ALWAYS = ("reward_score", "response_tokens", "ended", "rouge_l", "win_rate", "wins", "ties", "losses", "distinct_1")
OF_A_POLICY = ("kl_per_response", "nll_demonstrations")


def test_every_figure_is_there(table: Table, contestants: list[Contestant], metrics: dict[str, Any]) -> None:
    assert list(metrics) == ["base", "sft", "best_of_3", "yardsticks"]
    assert len(contestants) == contestants_in(table.policies) + 1
    for figures in (metrics["base"], metrics["sft"], metrics["base"]["greedy"], metrics["sft"]["greedy"]):
        assert {*GOLD_FIGURES, *ALWAYS, *OF_A_POLICY, "share_closed"} <= set(figures)
        assert set(figures["win_rate"]) == {"mean", "low", "high"}
    best = metrics["best_of_3"]
    assert {*GOLD_FIGURES, *ALWAYS, *OF_A_POLICY} <= set(best)
    assert "greedy" not in best
    assert best["kl_per_response"] == best["kl_bound"]
    assert best["nll_demonstrations"] == metrics["sft"]["nll_demonstrations"]
    assert best["kl_bound"] == pytest.approx(log(3) - 2 / 3)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_yardsticks_say_who_judged_and_what_is_possible(table: Table, metrics: dict[str, Any], world: World) -> None:
    about = metrics["yardsticks"]
    assert (about["prompts"], about["judged_by"]) == (PROMPTS, "gold rater")
    questions = [messages[-1].content for messages in table.exam.prompts]
    perfect = [world.rate(question, world.perfect_answer(question)).gold for question in questions]
    assert about["perfect"]["gold_score"] == pytest.approx(np.mean(perfect))
    assert about["best_of_5_gold"]["prompts"] == 4
    assert about["best_of_5_gold"]["gold_score"] <= about["perfect"]["gold_score"]


def test_sft_differs_from_itself_by_nothing_and_meets_another_sample_of_itself(
    contestants: list[Contestant], yardsticks: dict[str, Yardstick], metrics: dict[str, Any]
) -> None:
    sft = of(contestants, "sft").answers
    assert metrics["sft"]["kl_per_response"] == 0.0
    assert metrics["sft"]["share_closed"] == 0.0
    assert sft.texts == yardsticks[SAMPLED].sft.texts != yardsticks[SAMPLED].opponent.texts
    assert metrics["sft"]["greedy"]["win_rate"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert metrics["sft"]["greedy"]["ties"] == 1.0


def test_wins_ties_and_losses_are_counted_against_the_opponent(
    contestants: list[Contestant], yardsticks: dict[str, Yardstick], metrics: dict[str, Any]
) -> None:
    ours, theirs = of(contestants, "base").answers.gold["gold_score"], yardsticks[SAMPLED].opponent.gold["gold_score"]
    shares = [float(np.mean(found)) for found in (ours > theirs, ours == theirs, ours < theirs)]
    assert [metrics["base"][name] for name in ("wins", "ties", "losses")] == shares
    assert metrics["base"]["win_rate"]["mean"] == pytest.approx(shares[0] + shares[1] / 2)


def test_scores_of_an_answer_are_those_of_its_text(contestants: list[Contestant], table: Table, world: World) -> None:
    answers = of(contestants, "base").answers
    for i, (messages, text) in enumerate(zip(table.exam.prompts, answers.texts, strict=True)):
        rating = world.rate(messages[-1].content, text)
        assert answers.gold["gold_score"][i] == round(rating.gold, 9)
        assert answers.gold["harm"][i] == rating.harm


def test_scores_that_differ_in_the_last_bit_alone_tie(table: Table) -> None:
    rater = by_world(KnownRater({"a": 0.1 + 0.2, "b": 0.3}))  # type: ignore[arg-type]
    scores = [rater.rate(table.exam.prompts[:1], [text])["gold_score"][0] for text in ("a", "b")]
    assert scores[0] == scores[1]


@torch.no_grad()
def test_kl_is_the_log_ratio_of_the_whole_response(contestants: list[Contestant], table: Table) -> None:
    """Against stock transformers, one response at a time."""
    exam, answers = table.exam, of(contestants, "base", "greedy").answers
    logps = {"base": 0.0, "sft": 0.0}
    ids = list(exam.prompt_ids[0])
    for _ in range(int(answers.tokens[0])):
        logits = {name: load()(torch.tensor([ids])).logits[0, -1].double() for name, load in table.policies.items()}
        token = int(logits["base"].argmax())
        logps = {name: logps[name] + float(logits[name].log_softmax(-1)[token]) for name in logps}
        ids.append(token)
    assert answers.kl is not None
    assert answers.kl[0] == pytest.approx(logps["base"] - logps["sft"], abs=1e-4)


@torch.no_grad()
def test_nll_is_the_cross_entropy_of_response_tokens(metrics: dict[str, Any], table: Table) -> None:
    total, tokens = 0.0, 0
    for example in table.exam.demonstrations:
        logits = table.policies["base"]()(torch.tensor([example.prompt_ids + example.response_ids])).logits[0].double()
        told = logits[len(example.prompt_ids) - 1 : -1].log_softmax(-1)
        total -= float(told[torch.arange(len(example.response_ids)), example.response_ids].sum())
        tokens += len(example.response_ids)
    assert metrics["base"]["nll_demonstrations"] == pytest.approx(total / tokens, abs=1e-5)
    assert metrics["base"]["greedy"]["nll_demonstrations"] == metrics["base"]["nll_demonstrations"]


def test_the_best_of_several_is_what_the_reward_model_likes_best(yardsticks: dict[str, Yardstick]) -> None:
    sft, opponent = yardsticks[SAMPLED].sft, yardsticks[SAMPLED].opponent
    best = best_of([sft, opponent])
    for i in range(PROMPTS):
        source = opponent if opponent.rewards[i] > sft.rewards[i] else sft
        assert best.texts[i] == source.texts[i]
        assert best.gold["logic"][i] == source.gold["logic"][i]
        assert (best.rewards[i], best.tokens[i], best.ended[i]) == (source.rewards[i], source.tokens[i], source.ended[i])


def test_answers_end_or_stop_at_the_limit(contestants: list[Contestant]) -> None:
    for contestant in contestants:
        assert (contestant.answers.tokens <= RESPONSE_TOKENS).all()
        assert (contestant.answers.tokens[contestant.answers.ended == 0] == RESPONSE_TOKENS).all()


def test_a_second_evaluation_is_the_same(
    table: Table, contestants: list[Contestant], yardsticks: dict[str, Yardstick], pool: list[Answers]
) -> None:
    again = everybody(table, table.judges, yardsticks, pool)
    assert [c.figures for c in again] == [c.figures for c in contestants]
    assert [c.answers.texts for c in again] == [c.answers.texts for c in contestants]


def test_the_rows_of_the_curve_are_numbers_under_one_name_each(contestants: list[Contestant]) -> None:
    rows = [report.curve_row(step, contestant) for step, contestant in zip(count(1), contestants, strict=False)]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0]["win_rate_mean"] == contestants[0].figures["win_rate"]["mean"]
    assert all(
        isinstance(value, int | float) for row in rows for key, value in row.items() if key not in ("model", "decoding")
    )


def test_an_exam_without_prompts_stops(table: Table, config: Any, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="0 test prompts"):
        set_exam([], [], tokenizer, 64, config)


def test_prompts_are_of_their_families_in_the_world_and_of_one_kind_without_it(
    table: Table, world: World, asked: list[Prompt], config: Any, tokenizer: Any
) -> None:
    assert table.exam.families == [world.family(messages[-1].content) for messages in table.exam.prompts]
    assert len(set(table.exam.families)) > 1
    assert set_exam(asked, [], tokenizer, 64, config).families == [""] * PROMPTS
