"""Sampling: from the distribution that is scored, row by row, whoever stands beside."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf.models.batching import Batching
from rlhf.models.forward import logprobs_of
from rlhf.models.generation import Decoding, Generated, generate
from rlhf.models.precision import compute_in
from rlhf.models.tokens import Example
from tests.helpers import ROUNDING, assert_near
from tests.models.tiny_models import EOS, PAD, bigram_policy, ends_often, make_policy

PROMPTS = [[5, 6, 7, 8, 9, 10], [11], [12, 13, 4], [5, 6, 7, 8, 9, 10, 3], [14, 15]]
LIMIT = 12
# The last place of a logit between 4 and 8 in bfloat16, over a temperature of 0.7. A cache computes in other shapes than
# scoring does, and rounds some logits the other way: why what was sampled is scored anew before anything is learnt.
ONE_PLACE = 2**-5 / 0.7


def sample(
    policy: PreTrainedModel, prompts: list[list[int]], temperature: float | None = 1.0, seed: int = 0, limit: int = LIMIT
) -> list[Generated]:
    return generate(policy, prompts, Decoding(EOS, PAD, limit), temperature, seed)


def one_by_one(policy: PreTrainedModel, prompt: list[int], temperature: float | None, uniforms: Tensor) -> list[int]:
    """The slow twin: no cache, no padding, one row; a token where its cumulative probability passes the uniform number."""
    ids: list[int] = []
    for t in range(LIMIT):
        with torch.no_grad():
            logits = policy(input_ids=torch.tensor([prompt + ids])).logits[0, -1].double()
        if temperature is None:
            ids.append(int(logits.argmax()))
        else:
            totals = accumulate(torch.softmax(logits / temperature, -1).tolist())
            ids.append(next(token for token, total in enumerate(totals) if total > float(uniforms[t])))
        if ids[-1] == EOS:
            break
    return ids


@pytest.mark.parametrize("temperature", [None, 1.0, 0.6, 1.7])
def test_generation_is_the_slow_twins(policy: PreTrainedModel, temperature: float | None) -> None:
    """Left padding, the cache and rows that leave the batch change nothing, whatever the positions."""
    policy = ends_often(policy)
    uniforms = torch.rand((len(PROMPTS), LIMIT), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    responses = sample(policy, PROMPTS, temperature, seed=3)
    expected = [one_by_one(policy, prompt, temperature, row) for prompt, row in zip(PROMPTS, uniforms, strict=True)]
    assert [r.response_ids for r in responses] == expected
    assert [r.ended for r in responses] == [ids[-1] == EOS for ids in expected]


def test_the_rows_of_these_tests_end_at_different_places(policy: PreTrainedModel) -> None:
    lengths = {len(r.response_ids) for r in sample(ends_often(policy), PROMPTS * 4)}
    assert len(lengths) > 4


def test_greedy_is_stock_generate(policy: PreTrainedModel) -> None:
    policy = ends_often(policy)
    for prompt, ours in zip(PROMPTS, sample(policy, PROMPTS, None), strict=True):
        ids = torch.tensor([prompt])
        stock = policy.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=LIMIT)
        assert ours.response_ids == stock[0, len(prompt) :].tolist()


def test_sampled_tokens_come_as_often_as_softmax_says() -> None:
    table = torch.randn(8, 8, generator=torch.Generator().manual_seed(1)) * 1.5
    rows = 20_000
    for temperature in (1.0, 0.5):
        drawn = generate(bigram_policy(table), [[4]] * rows, Decoding(7, 0, 1), temperature, seed=0)
        counts = torch.bincount(torch.tensor([r.response_ids[0] for r in drawn]), minlength=8).double()
        p = (table[4].double() / temperature).softmax(-1)
        chi_square = float(((counts - rows * p).square() / (rows * p)).sum())
        assert chi_square < 24.3  # the 99.9 % point of chi-square with 7 degrees of freedom


def test_a_token_without_probability_is_never_drawn() -> None:
    table = torch.full((6, 6), -1e9)
    table[:, 1:3] = 0.0
    drawn = generate(bigram_policy(table), [[3]] * 2000, Decoding(5, 0, 1), 1.0, seed=0)
    assert {r.response_ids[0] for r in drawn} == {1, 2}


def test_what_was_sampled_is_what_is_scored(policy: PreTrainedModel, precision: str) -> None:
    """The distributions that the cached, left-padded decoding drew from give the log-probabilities of `forward`."""
    compute_in(policy, precision)
    seen: list[Tensor] = []
    handle = policy.register_forward_hook(lambda _module, _inputs, output: seen.append(output.logits[:, -1]))
    responses = generate(policy, PROMPTS, Decoding(-1, PAD, LIMIT), temperature=0.7, seed=5)
    handle.remove()
    assert {logits.dtype for logits in seen} == {getattr(torch, precision)}
    drawn_from = torch.log_softmax(torch.stack(seen, dim=1).float() / 0.7, -1)  # in the order of decoding: by length
    examples = [Example(p, r.response_ids) for p, r in zip(PROMPTS, responses, strict=True)]
    by_length = sorted(range(len(PROMPTS)), key=lambda i: len(PROMPTS[i]))
    for row, i in zip(drawn_from, by_length, strict=True):
        own = row.gather(1, torch.tensor(examples[i].response_ids)[:, None])[:, 0]
        scored = logprobs_of(policy, [examples[i]], Batching(PAD, 1), temperature=0.7)[0]
        assert_near(own, scored, ROUNDING[precision] if precision == "float32" else ONE_PLACE)
        assert float((own - scored).abs().mean()) < ROUNDING[precision]


def test_a_row_draws_the_same_whoever_stands_beside(policy: PreTrainedModel) -> None:
    """In float32. In bfloat16 its random numbers are the same too, but other company may round a probability across one."""
    policy = ends_often(policy)
    together = sample(policy, PROMPTS, seed=9)
    others = [PROMPTS[0], [4, 4, 4, 4, 4, 4, 4, 4, 4, 4], *PROMPTS[2:], [3], [8, 8]]
    beside_others = sample(policy, others, seed=9)
    assert [beside_others[i] for i in (0, 2, 3, 4)] == [together[i] for i in (0, 2, 3, 4)]
    assert generate(policy, PROMPTS, Decoding(EOS, PAD, LIMIT, responses_at_once=2), 1.0, 9) == together
    assert sample(policy, PROMPTS[:1], seed=9) == together[:1]


def test_another_seed_draws_other_numbers(policy: PreTrainedModel, precision: str) -> None:
    compute_in(policy, precision)
    assert sample(policy, PROMPTS, seed=1) != sample(policy, PROMPTS, seed=2)
    assert sample(policy, PROMPTS, seed=1) == sample(policy, PROMPTS, seed=1)


def test_equal_prompts_draw_different_responses(policy: PreTrainedModel, precision: str) -> None:
    """Where nothing is drawn they are all the likeliest one."""
    compute_in(policy, precision)
    assert len({tuple(r.response_ids) for r in sample(policy, [[5, 6]] * 6)}) == 6
    assert len({tuple(r.response_ids) for r in sample(policy, [[5, 6]] * 6, None)}) == 1


def test_generation_leaves_the_global_random_numbers_alone(policy: PreTrainedModel) -> None:
    before = torch.get_rng_state()
    sample(policy, PROMPTS)
    assert torch.equal(torch.get_rng_state(), before)


def chain() -> PreTrainedModel:
    """3 → 4 → 5 → 2 (the end), and 6 → 6 for ever."""
    table = torch.full((8, 8), -50.0)
    for before, after in {3: 4, 4: 5, 5: EOS, 6: 6, EOS: 6, 0: 0, 1: 1}.items():
        table[before, after] = 50.0
    return bigram_policy(table)


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_a_response_stops_with_its_end_token_or_at_the_limit(temperature: float | None) -> None:
    responses = sample(chain(), [[3], [6], [1, 3], [1, 1, 5]], temperature, limit=4)
    assert responses == [
        Generated([4, 5, EOS], ended=True),
        Generated([6, 6, 6, 6], ended=False),
        Generated([4, 5, EOS], ended=True),
        Generated([EOS], ended=True),
    ]


@pytest.mark.parametrize(
    ("limit", "expected"), [(2, Generated([4, 5], ended=False)), (3, Generated([4, 5, EOS], ended=True))]
)
def test_an_end_token_at_the_limit_is_an_end(limit: int, expected: Generated) -> None:
    assert sample(chain(), [[3]], limit=limit) == [expected]


def test_an_end_token_in_the_prompt_ends_nothing() -> None:
    assert sample(chain(), [[3, EOS]], None, limit=2) == [Generated([6, 6], ended=False)]


def test_no_prompts_give_no_responses() -> None:
    assert sample(make_policy("llama"), []) == []
