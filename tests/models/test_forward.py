"""One forward pass against what it means: each row alone, without padding, by the model's own logits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.errors import UserError
from rlhf.models.forward import (
    Batching,
    flush_left,
    logprobs_and_entropy,
    logprobs_and_entropy_of,
    logprobs_and_values,
    logprobs_of,
    micro_batches,
    response_logprobs,
    response_scores,
    response_values,
    scores_of,
    shared_values_of,
    token_outputs,
    values_of,
)
from rlhf.models.tokens import Batch, Example, collate
from tests.helpers import assert_near, lengths_to_mask
from tests.models.tiny_models import (
    PAD,
    bigram_policy,
    linear_classifier,
    make_classifier,
    make_policy,
    random_examples,
    random_ids,
)

EXAMPLES = random_examples(7)
TOLERANCE = 1e-6


def alone(policy: PreTrainedModel, example: Example, temperature: float = 1.0) -> Tensor:
    """(r, V) log-probabilities of every token at each place of the response, from one row without padding."""
    with torch.no_grad():
        logits = policy(input_ids=torch.tensor([example.prompt_ids + example.response_ids])).logits[0].float()
    start = len(example.prompt_ids)
    return torch.stack(
        [torch.log_softmax(logits[start + t - 1] / temperature, -1) for t in range(len(example.response_ids))]
    )


def picked(distributions: Tensor, example: Example) -> Tensor:
    return torch.stack([distributions[t, token] for t, token in enumerate(example.response_ids)])


def rows_of(output: Tensor, examples: list[Example]) -> list[Tensor]:
    return [row[: len(example.response_ids)].detach() for row, example in zip(output, examples, strict=True)]


def with_left_padding(batch: Batch, columns: int) -> Batch:
    rows = len(batch.prompt_ids)
    return replace(
        batch,
        prompt_ids=torch.cat([torch.full((rows, columns), PAD), batch.prompt_ids], dim=1),
        prompt_mask=torch.cat([torch.zeros(rows, columns, dtype=torch.bool), batch.prompt_mask], dim=1),
    )


@pytest.mark.parametrize("columns", [0, 5, 50])
def test_log_probabilities_are_those_of_each_row_alone(policy: PreTrainedModel, columns: int) -> None:
    batch = with_left_padding(collate(EXAMPLES, PAD), columns)
    for row, example in zip(rows_of(response_logprobs(policy, batch), EXAMPLES), EXAMPLES, strict=True):
        assert_near(row, picked(alone(policy, example), example), TOLERANCE)


def test_extra_padding_on_the_right_changes_nothing(policy: PreTrainedModel) -> None:
    batch = collate(EXAMPLES, PAD)
    extra = torch.full((len(EXAMPLES), 6), PAD)
    longer = replace(
        batch,
        response_ids=torch.cat([batch.response_ids, extra], dim=1),
        response_mask=torch.cat([batch.response_mask, torch.zeros_like(extra, dtype=torch.bool)], dim=1),
    )
    assert_near(response_logprobs(policy, longer)[:, :-6], response_logprobs(policy, batch), TOLERANCE)
    assert_near(response_logprobs(policy, longer)[:, -6:], torch.zeros(len(EXAMPLES), 6))


@given(st.permutations(range(7)), st.integers(1, 7), st.sampled_from([1, 13, 25, 60, 10_000]))
def test_neither_company_nor_micro_batches_matter(order: list[int], count: int, tokens: int) -> None:
    policy, classifier = make_policy("gpt2"), make_classifier("gpt2")
    chosen = [EXAMPLES[i] for i in order[:count]]
    for row, example in zip(logprobs_of(policy, chosen, Batching(PAD, tokens)), chosen, strict=True):
        assert_near(row, picked(alone(policy, example), example), 2e-6)
    each = [scores_of(classifier, [example], Batching(PAD, 1))[0] for example in chosen]
    assert_near(scores_of(classifier, chosen, Batching(PAD, tokens)), torch.stack(each), 2e-6)


def test_what_stands_in_the_padding_does_not_matter(policy: PreTrainedModel, architecture: str) -> None:
    """Neither to the numbers, nor to a gradient."""
    batch = collate(EXAMPLES, PAD)
    garbage_left, garbage_right = (random_ids(*x.shape, seed=9) for x in (batch.prompt_ids, batch.response_ids))
    dirty = replace(
        batch,
        prompt_ids=torch.where(batch.prompt_mask, batch.prompt_ids, garbage_left),
        response_ids=torch.where(batch.response_mask, batch.response_ids, garbage_right),
    )
    classifier = make_classifier(architecture)
    for model, read in ((policy, response_logprobs), (classifier, response_values), (classifier, response_scores)):
        numbers, gradients = [], []
        for each in (batch, dirty):
            model.zero_grad()
            output = read(model, each)
            output.sum().backward()
            numbers.append(output.detach())
            gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        assert_near(numbers[1], numbers[0], TOLERANCE)
        for dirty_gradient, clean_gradient in zip(gradients[1], gradients[0], strict=True):
            assert_near(dirty_gradient, clean_gradient, 1e-4)


def test_masked_places_are_exactly_zero(policy: PreTrainedModel, classifier: PreTrainedModel) -> None:
    batch = collate(EXAMPLES, PAD)
    logprobs, entropy = logprobs_and_entropy(policy, batch)
    for output in (logprobs, entropy, response_values(classifier, batch)):
        assert output[~batch.response_mask].eq(0).all()


def test_a_table_of_bigrams_gives_its_own_numbers_back() -> None:
    """The off-by-one probe: token t is predicted from token t - 1, the first one from the prompt's last."""
    table = torch.randn(6, 6, generator=torch.Generator().manual_seed(3)) * 2
    example = Example([4, 1], [3, 3, 0, 5])
    expected = [table[before].double().log_softmax(-1)[now] for before, now in [(1, 3), (3, 3), (3, 0), (0, 5)]]
    batch = collate([example, Example([2], [5])], pad_id=0)
    assert_near(response_logprobs(bigram_policy(table), batch)[0], torch.stack(expected), TOLERANCE)


def test_temperature_divides_the_logits(policy: PreTrainedModel) -> None:
    batch = collate(EXAMPLES, PAD)
    for row, example in zip(rows_of(response_logprobs(policy, batch, 0.7), EXAMPLES), EXAMPLES, strict=True):
        assert_near(row, picked(alone(policy, example, 0.7), example), TOLERANCE)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_entropy_is_that_of_the_distribution_sampled_from(policy: PreTrainedModel, temperature: float) -> None:
    rows = logprobs_and_entropy_of(policy, EXAMPLES, Batching(PAD, 40), temperature)[1]
    for row, example in zip(rows, EXAMPLES, strict=True):
        p = alone(policy, example, temperature).double().exp()
        expected = [-sum(float(x) * math.log(float(x)) for x in place) for place in p]
        assert_near(row, torch.tensor(expected), 1e-5)


def test_the_entropy_of_even_odds_and_of_certainty() -> None:
    table = torch.zeros(4, 4)
    table[3] = torch.tensor([-math.inf, -math.inf, 0.0, -math.inf]).nan_to_num(neginf=-1e9)
    _, entropy = logprobs_and_entropy(bigram_policy(table), collate([Example([0], [3, 2])], 0))
    assert_near(entropy[0], torch.tensor([math.log(4), 0.0]), TOLERANCE)


def test_values_are_read_one_place_before_the_token() -> None:
    classifier = linear_classifier(torch.tensor([0.0, 10.0, 20.0, 30.0, 40.0, 50.0]))
    batch = collate([Example([4, 1], [3, 2, 5]), Example([2], [5])], pad_id=0)
    assert_near(response_values(classifier, batch), torch.tensor([[10.0, 30.0, 20.0], [20.0, 0.0, 0.0]]), 1e-5)


def test_the_score_is_read_at_the_last_real_token() -> None:
    classifier = linear_classifier(torch.tensor([0.0, 10.0, 20.0, 30.0, 40.0, 50.0]))
    batch = collate([Example([4, 1], [3, 2, 5]), Example([2], [3, 0])], pad_id=0)
    assert_near(response_scores(classifier, batch), torch.tensor([50.0, 0.0]), 1e-5)


def test_scores_are_those_of_stock_transformers(classifier: PreTrainedModel) -> None:
    classifier.config.reward_center = 0.75
    for example in EXAMPLES:
        with torch.no_grad():
            stock = classifier(input_ids=torch.tensor([example.prompt_ids + example.response_ids])).logits[0, 0]
        assert_near(scores_of(classifier, [example], Batching(PAD, 64))[0], stock - 0.75, 1e-5)
    assert_near(scores_of(classifier, EXAMPLES, Batching(PAD, 10_000))[-1], stock - 0.75, 1e-5)


def test_centre_and_scale_come_off_what_the_head_says(classifier: PreTrainedModel) -> None:
    ids = random_ids(2, 5, seed=1)
    raw = token_outputs(classifier, ids).detach()
    classifier.config.reward_center, classifier.config.reward_scale = 3.0, 2.0
    assert_near(token_outputs(classifier, ids), (raw - 3.0) / 2.0, TOLERANCE)


def test_the_value_of_a_whole_response_is_its_score(classifier: PreTrainedModel) -> None:
    """A further token is one more place to read: there the critic says what the reward model says."""
    longer = [Example(e.prompt_ids, [*e.response_ids, 7]) for e in EXAMPLES]
    values = values_of(classifier, longer, Batching(PAD, 10_000))
    last = torch.stack([row[-1] for row in values])
    assert_near(last, scores_of(classifier, EXAMPLES, Batching(PAD, 10_000)), 1e-5)


def value_head(policy: PreTrainedModel) -> nn.Linear:
    torch.manual_seed(4)
    return nn.Linear(policy.config.hidden_size, 1, bias=False)


def test_a_shared_trunk_gives_the_same_log_probabilities_and_reads_its_last_layer(policy: PreTrainedModel) -> None:
    head, batch = value_head(policy), collate(EXAMPLES, PAD)
    logprobs, values = logprobs_and_values(policy, head, batch, 0.7)
    assert_near(logprobs, response_logprobs(policy, batch, 0.7))
    for row, example in zip(rows_of(values, EXAMPLES), EXAMPLES, strict=True):
        ids = torch.tensor([example.prompt_ids + example.response_ids])
        hidden = policy.base_model(input_ids=ids).last_hidden_state[0]
        start = len(example.prompt_ids)
        expected = [head(hidden[start + t - 1])[0] for t in range(len(example.response_ids))]
        assert_near(row, torch.stack(expected), 1e-5)
    for ours, row in zip(
        shared_values_of(policy, head, EXAMPLES, Batching(PAD, 30)), rows_of(values, EXAMPLES), strict=True
    ):
        assert_near(ours, row, 1e-5)


def test_the_loss_of_shared_values_teaches_the_trunk(policy: PreTrainedModel) -> None:
    head = value_head(policy)
    logprobs_and_values(policy, head, collate(EXAMPLES, PAD), 1.0)[1].square().sum().backward()
    for weight in (policy.base_model.get_input_embeddings().weight, head.weight):
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0


def test_a_head_in_float32_reads_a_trunk_in_bfloat16(policy: PreTrainedModel) -> None:
    logprobs, values = logprobs_and_values(policy.bfloat16(), value_head(policy), collate(EXAMPLES, PAD), 1.0)
    assert logprobs.dtype == values.dtype == torch.float32
    assert values.isfinite().all()


def test_bfloat16_is_near_float32(policy: PreTrainedModel, architecture: str) -> None:
    exact = torch.cat(logprobs_of(policy, EXAMPLES, Batching(PAD, 10_000)))
    rounded = torch.cat(logprobs_of(make_policy(architecture).bfloat16(), EXAMPLES, Batching(PAD, 10_000)))
    assert rounded.dtype == torch.float32
    assert (exact - rounded).abs().mean() < 0.1
    alone_rounded = [logprobs_of(make_policy(architecture).bfloat16(), [e], Batching(PAD, 64))[0] for e in EXAMPLES]
    assert (torch.cat(alone_rounded) - rounded).abs().max() < 0.3


def test_reading_a_list_leaves_no_gradient_and_an_empty_list_is_no_error(
    policy: PreTrainedModel, classifier: PreTrainedModel
) -> None:
    outputs = [*logprobs_of(policy, EXAMPLES, Batching(PAD, 50)), *values_of(classifier, EXAMPLES, Batching(PAD, 50))]
    assert not any(output.requires_grad for output in [*outputs, scores_of(classifier, EXAMPLES, Batching(PAD, 50))])
    assert logprobs_of(policy, [], Batching(PAD, 50)) == []
    assert len(scores_of(classifier, [], Batching(PAD, 50))) == 0


def test_weights_that_are_not_finite_are_named(policy: PreTrainedModel, classifier: PreTrainedModel) -> None:
    batch = collate(EXAMPLES, PAD)
    for model in (policy, classifier):
        with torch.no_grad():
            model.base_model.get_input_embeddings().weight[EXAMPLES[0].prompt_ids[-1], 0] = math.nan
    for read, model, what in (
        (response_logprobs, policy, "log-probabilities"),
        (response_values, classifier, "values"),
        (response_scores, classifier, "scores"),
    ):
        with pytest.raises(UserError, match=f"{what} are not finite"):
            read(model, batch)


def test_rows_are_moved_to_the_left_and_read_one_before_each_token() -> None:
    batch = Batch(
        prompt_ids=torch.tensor([[0, 5, 6], [7, 8, 9]]),
        prompt_mask=torch.tensor([[False, True, True], [True, True, True]]),
        response_ids=torch.tensor([[1, 2], [3, 0]]),
        response_mask=lengths_to_mask([2, 1]),
    )
    ids, positions = flush_left(batch)
    assert ids.tolist()[0] == [5, 6, 1, 2]
    assert ids.tolist()[1] == [7, 8, 9, 3]
    assert positions.tolist()[0] == [1, 2]
    assert positions.tolist()[1][0] == 2


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 120))
def test_micro_batches_hold_every_row_once_and_keep_to_their_size(lengths: list[int], tokens: int) -> None:
    groups = micro_batches(lengths, tokens)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= tokens
    flat = [lengths[i] for group in groups for i in group]
    assert flat == sorted(lengths, reverse=True)
