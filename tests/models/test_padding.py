"""Neither padding, nor what stands in it, nor the rows beside a row move what a model says of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from rlhf.models.batching import Batching
from rlhf.models.forward import (
    logprobs_and_entropy,
    logprobs_and_values,
    logprobs_of,
    response_logprobs,
    response_scores,
    response_values,
    scores_of,
    token_outputs,
    values_of,
)
from rlhf.models.precision import compute_in
from rlhf.models.tokens import Batch, Example, collate
from tests.helpers import ROUNDING, assert_near
from tests.models.tiny_models import (
    EOS,
    PAD,
    alone,
    make_classifier,
    make_policy,
    picked,
    random_examples,
    random_ids,
    value_head,
)

EXAMPLES = random_examples(7)
TOLERANCE = 1e-6


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
    for row, example in zip(response_logprobs(policy, batch), EXAMPLES, strict=True):
        assert_near(row[: len(example.response_ids)], picked(alone(policy, example), example), TOLERANCE)


def with_right_padding(batch: Batch, columns: int) -> Batch:
    extra = torch.full((len(batch.response_ids), columns), PAD)
    return replace(
        batch,
        response_ids=torch.cat([batch.response_ids, extra], dim=1),
        response_mask=torch.cat([batch.response_mask, torch.zeros_like(extra, dtype=torch.bool)], dim=1),
    )


@pytest.mark.parametrize(("left", "right"), [(5, 0), (50, 0), (0, 6), (50, 6)])
def test_padding_on_either_side_changes_no_bit(architecture: str, precision: str, left: int, right: int) -> None:
    """Of log-probabilities, of values by a critic of its own and on a shared trunk, and of scores."""
    policy, classifier = make_policy(architecture, precision=precision), make_classifier(architecture, precision=precision)
    head = value_head(policy)
    batch = collate(EXAMPLES, PAD)
    wider = with_right_padding(with_left_padding(batch, left), right)
    for read in (
        partial(response_logprobs, policy),
        partial(response_values, classifier),
        lambda b: logprobs_and_values(policy, head, b, 1.0)[1],
    ):
        expected = torch.nn.functional.pad(read(batch), (0, right))
        assert torch.equal(read(wider), expected)
    assert torch.equal(response_scores(classifier, wider), response_scores(classifier, batch))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the two fixtures are constants
@given(st.permutations(range(7)), st.integers(1, 7), st.sampled_from([1, 13, 25, 60, 10_000]))
def test_neither_company_nor_micro_batches_matter(
    architecture: str, precision: str, order: list[int], count: int, tokens: int
) -> None:
    policy, classifier = make_policy(architecture, precision=precision), make_classifier(architecture, precision=precision)
    chosen = [EXAMPLES[i] for i in order[:count]]
    for read, model in ((logprobs_of, policy), (values_of, classifier), (scores_of, classifier)):
        each = [read(model, [example], Batching(PAD, 1))[0] for example in chosen]
        for row, by_itself in zip(read(model, chosen, Batching(PAD, tokens)), each, strict=True):
            assert_near(row, by_itself, 2e-6 if precision == "float32" else ROUNDING[precision])
    if precision == "float32":
        for row, example in zip(logprobs_of(policy, chosen, Batching(PAD, tokens)), chosen, strict=True):
            assert_near(row, picked(alone(policy, example), example), 2e-6)


@pytest.mark.parametrize("tokens", [1, 25, 10_000])
def test_a_pad_id_in_a_text_is_a_token_like_any_other(architecture: str, precision: str, tokens: int) -> None:
    """In the prompt, in the response and as its last token: what is read, and where, goes by lengths and never by ids."""
    texts = [([5, PAD, 6], [7, 8, EOS]), ([PAD, 9], [10, PAD, 11, PAD]), ([12, 13, 14, 15, 16, PAD], [PAD]), ([4], [5, 6])]
    examples = [Example(prompt, response) for prompt, response in texts]
    classifier = make_classifier(architecture, precision=precision)
    scores = scores_of(classifier, examples, Batching(PAD, tokens))
    for score, values, example in zip(scores, values_of(classifier, examples, Batching(PAD, tokens)), examples, strict=True):
        everywhere = token_outputs(classifier, torch.tensor([example.prompt_ids + example.response_ids]))[0].detach()
        assert_near(score, everywhere[-1], ROUNDING[precision])
        assert_near(values, everywhere[len(example.prompt_ids) - 1 : -1], ROUNDING[precision])


def test_what_stands_in_the_padding_does_not_matter(architecture: str, precision: str) -> None:
    """Neither to the numbers, nor to a gradient."""
    policy, classifier = make_policy(architecture, precision=precision), make_classifier(architecture, precision=precision)
    batch = collate(EXAMPLES, PAD)
    garbage_left, garbage_right = (random_ids(*x.shape, seed=9) for x in (batch.prompt_ids, batch.response_ids))
    dirty = replace(
        batch,
        prompt_ids=torch.where(batch.prompt_mask, batch.prompt_ids, garbage_left),
        response_ids=torch.where(batch.response_mask, batch.response_ids, garbage_right),
    )
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


def test_masked_places_are_exactly_zero(policy: PreTrainedModel, classifier: PreTrainedModel, precision: str) -> None:
    compute_in(policy, precision)
    compute_in(classifier, precision)
    batch = collate(EXAMPLES, PAD)
    logprobs, entropy = logprobs_and_entropy(policy, batch)
    for output in (logprobs, entropy, response_values(classifier, batch)):
        assert output[~batch.response_mask].eq(0).all()
