"""DPO in rounds: prompts of its own for each, answers of the policy as it then is, one optimizer, one reference."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.errors import UserError
from rlhf.models.batching import Batching
from rlhf.records import Message, Preference, Prompt
from rlhf.runtime.memory import Memory
from rlhf.training import dpo_rounds
from rlhf.training.dpo import Reference, train_dpo, with_reference
from rlhf.training.dpo_rounds import LabelAnew, Rounds, shares_of, train_rounds
from rlhf.training.loop import LoopState, Passes
from tests.models.tiny_models import PAD, make_policy, words_tokenizer
from tests.training.table import TOKENS, dpo_settings, engine_for, weights

WORDS = ["one", "two", "three", "four", "five", "six", "seven"]
BATCHING = Batching(PAD, TOKENS)
PASSES = Passes(epochs=2, rows_per_step=2, eval_every_steps=3, seed=1)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return words_tokenizer(" ".join(WORDS))


def pairs_for(question: str, *pairs: tuple[str, str]) -> list[Preference]:
    return [Preference((Message("user", question),), chosen, rejected, "train", "gold") for chosen, rejected in pairs]


PAIRS = [pair for word in WORDS[:5] for pair in pairs_for(word, ("six", "seven"), ("six six", word))]


def no_more(prompts: Sequence[Prompt], number: int) -> list[Preference]:
    raise AssertionError(f"round {number} was asked for")


def rounds_of(tokenizer: PreTrainedTokenizerBase, rounds: int, label_anew: LabelAnew = no_more, context: int = 30) -> Rounds:
    return Rounds(shares_of(PAIRS, rounds), label_anew, tokenizer, context, max_dropped_share=0.0)


def learn(
    state: LoopState, rounds: Rounds, reference: PreTrainedModel, folder: Path, count: int = 3
) -> Iterator[dict[str, float]]:
    memory, settings = Memory(folder, "model"), dpo_settings(rounds=count)
    return train_rounds(state, rounds, reference, memory, [], PASSES, BATCHING, None, settings)


def test_each_round_has_prompts_of_its_own_and_all_pairs_of_them() -> None:
    for rounds in (1, 2, 3, 5):
        shares = shares_of(PAIRS, rounds)
        prompts = [{pair.prompt for pair in share} for share in shares]
        assert len(set.union(*prompts)) == sum(map(len, prompts)) == 5
        assert max(map(len, prompts)) - min(map(len, prompts)) <= 1
        assert sorted(map(repr, PAIRS)) == sorted(repr(pair) for share in shares for pair in share)
    with pytest.raises(UserError, match=r"dpo.rounds \(6\) must be at most the number of train prompts with pairs \(5\)"):
        shares_of(PAIRS, 6)


def test_one_round_is_dpo(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    trained = []
    for in_rounds in (True, False):
        policy, reference = make_policy("llama"), make_policy("llama")
        rounds = rounds_of(tokenizer, 1)
        state = LoopState(engine_for(policy, steps=rounds.steps(PASSES)))
        if in_rounds:
            told = list(learn(state, rounds, reference, tmp_path, 1))
        else:
            rows = with_reference(reference, rounds.fit(PAIRS).rows, BATCHING)
            told = list(train_dpo(state, rows, [], PASSES, BATCHING, None, dpo_settings()))
        trained.append((weights(policy), told))
    assert torch.equal(trained[0][0], trained[1][0])
    assert trained[0][1] == trained[1][1]
    assert [row["step"] for row in trained[0][1]] == [0, 1, 2, 3, 4, 5]


def test_later_rounds_learn_what_the_policy_of_the_moment_answers(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels of a round are asked for only when the rounds before it are learnt; its reference is still the first."""
    policy, reference = make_policy("llama"), make_policy("llama")
    start = weights(policy)
    asked: list[tuple[int, list[Prompt]]] = []
    moved: list[float] = []
    learnt: list[list[Reference]] = []

    def label_anew(prompts: Sequence[Prompt], number: int) -> list[Preference]:
        asked.append((number, list(prompts)))
        moved.append(float((weights(policy) - start).abs().max()))
        return [p for prompt in prompts for p in pairs_for(prompt.prompt[0].content, ("five", "six"))]

    real = dpo_rounds.train_dpo
    monkeypatch.setattr(dpo_rounds, "train_dpo", lambda state, rows, *rest: learnt.append(rows) or real(state, rows, *rest))
    rounds = rounds_of(tokenizer, 3, label_anew)
    state = LoopState(engine_for(policy, steps=rounds.steps(PASSES)))
    told = list(learn(state, rounds, reference, tmp_path))
    assert [number for number, _ in asked] == [2, 3]
    assert [[p.prompt for p in prompts] for _, prompts in asked] == [
        list(dict.fromkeys(pair.prompt for pair in share)) for share in shares_of(PAIRS, 3)[1:]
    ]
    assert 0 < moved[0] < moved[1]
    assert [(row["step"], row["round"]) for row in told] == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3)]
    assert rounds.steps(PASSES) == 5
    assert dict(state.learnt) == {"prompts": 5, "pairs": 2 * 2 + 2 + 1, "truncated_prompts": 0, "dropped": 0}
    for rows in learnt:
        again = with_reference(make_policy("llama"), [r.row for r in rows], BATCHING)
        assert all(torch.equal(a.logps, b.logps) for a, b in zip(rows, again, strict=True))


@pytest.mark.parametrize("taken", [1, 2, 3, 4, 5, 6])
def test_stopping_and_going_on_gives_the_same_bits(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, taken: int) -> None:
    """Wherever it stops, within a round or between two: what was labelled for a round is not asked for again."""

    def started(policy: PreTrainedModel, asked: list[int]) -> tuple[LoopState, Rounds]:
        def label_anew(prompts: Sequence[Prompt], number: int) -> list[Preference]:
            asked.append(number)
            better, worse = ("five", "six") if float(weights(policy).sum()) * 1e6 % 2 < 1 else ("six", "five")
            return [p for prompt in prompts for p in pairs_for(prompt.prompt[0].content, (better, worse))]

        rounds = rounds_of(tokenizer, 3, label_anew)
        return LoopState(engine_for(policy, steps=rounds.steps(PASSES))), rounds

    whole, stopped, fresh = (make_policy("llama") for _ in range(3))
    state, rounds = started(whole, [])
    expected = list(learn(state, rounds, make_policy("llama"), tmp_path))
    asked: list[int] = []
    first, rounds = started(stopped, asked)
    running = learn(first, rounds, make_policy("llama"), tmp_path)
    before = [next(running) for _ in range(taken)]
    resumed, rounds = started(fresh, asked)
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    assert before + skip_first_look(learn(resumed, rounds, make_policy("llama"), tmp_path), taken) == expected
    assert torch.equal(weights(fresh), weights(whole))
    assert asked == [2, 3]
    assert resumed.learnt == state.learnt


def skip_first_look(rows: Iterator[dict[str, float]], taken: int) -> list[dict[str, float]]:
    """The row before the first step comes again where nothing that was said tells of it: nobody was watched here."""
    return [row for row in rows if row["step"] > 0 or taken == 0]


def test_a_round_without_a_preference_says_why(tokenizer: PreTrainedTokenizerBase) -> None:
    rounds = rounds_of(tokenizer, 2, lambda prompts, number: [])
    with pytest.raises(UserError, match=r"in round 2 the policy's answers to each of 2 prompts are all alike.*dpo\.rounds"):
        rounds.preferences(2)


def test_pairs_that_do_not_fit_are_refused_and_those_that_do_make_the_schedule(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match="none of 5 rows fits the context of 3 tokens"):
        rounds_of(tokenizer, 1, context=3).steps(PASSES)
    longer = pairs_for("seven", ("one", " ".join(["six"] * 30)))
    rounds = Rounds([PAIRS + longer], no_more, tokenizer, 20, max_dropped_share=0.5)
    assert rounds.fit(PAIRS + longer).dropped == 1
    assert rounds.steps(PASSES) == rounds_of(tokenizer, 1).steps(PASSES) == 5


def test_the_memory_spares_the_reference_and_changes_no_bit(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    reference = make_policy("llama", seed=1)
    asked: list[int] = []
    reference.register_forward_hook(lambda *_: asked.append(1))
    rows = rounds_of(tokenizer, 1).fit(PAIRS).rows
    first, again = (with_reference(reference, rows, BATCHING, Memory(tmp_path, "model")) for _ in range(2))
    passes = len(asked)
    assert all(torch.equal(a.logps, b.logps) for a, b in zip(first, again, strict=True))
    with_reference(reference, rows, BATCHING, Memory(tmp_path, "another"))
    assert len(asked) == 2 * passes > 0
    assert with_reference(reference, [], BATCHING, Memory(tmp_path, "model")) == []
