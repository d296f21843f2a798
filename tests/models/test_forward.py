"""One forward pass against what it means: each row alone, without padding, by the model's own logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf.errors import UserError
from rlhf.models.batching import Batching
from rlhf.models.forward import (
    flush_left,
    logprobs_and_entropy,
    logprobs_and_entropy_of,
    logprobs_and_values,
    logprobs_of,
    response_logprobs,
    response_scores,
    response_values,
    scores_of,
    shared_values_of,
    token_outputs,
    values_of,
)
from rlhf.models.precision import compute_in
from rlhf.models.tokens import Batch, Example, collate
from tests.helpers import ROUNDING, assert_near, lengths_to_mask
from tests.models.tiny_models import (
    PAD,
    alone,
    bigram_policy,
    linear_classifier,
    make_classifier,
    make_policy,
    picked,
    random_examples,
    random_ids,
    value_head,
)

EXAMPLES = random_examples(7)
TOLERANCE = 1e-6


def rows_of(output: Tensor, examples: list[Example]) -> list[Tensor]:
    return [row[: len(example.response_ids)].detach() for row, example in zip(output, examples, strict=True)]


def test_a_table_of_bigrams_gives_its_own_numbers_back(precision: str) -> None:
    """The off-by-one probe: token t is predicted from token t - 1, the first one from the prompt's last.

    bfloat16 holds these logits exactly, so that with a softmax in float32 it loses nothing either."""
    table = (torch.randn(16, 16, generator=torch.Generator().manual_seed(3)) * 16).round() / 8
    example = Example([4, 1], [3, 3, 0, 5])
    expected = [table[before].double().log_softmax(-1)[now] for before, now in [(1, 3), (3, 3), (3, 0), (0, 5)]]
    batch = collate([example, Example([2], [5])], pad_id=0)
    policy = bigram_policy(table)
    compute_in(policy, precision)
    assert_near(response_logprobs(policy, batch)[0], torch.stack(expected), TOLERANCE)


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


def test_the_value_of_a_whole_response_is_its_score(classifier: PreTrainedModel, precision: str) -> None:
    """A further token is one more place to read: there the critic says what the reward model says."""
    compute_in(classifier, precision)
    longer = [Example(e.prompt_ids, [*e.response_ids, 7]) for e in EXAMPLES]
    values = values_of(classifier, longer, Batching(PAD, 10_000))
    last = torch.stack([row[-1] for row in values])
    assert_near(last, scores_of(classifier, EXAMPLES, Batching(PAD, 10_000)), ROUNDING[precision])


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


def test_a_model_that_computes_in_bfloat16_is_near_itself_in_float32_and_not_the_same(architecture: str) -> None:
    def said(precision: str) -> list[Tensor]:
        policy, classifier = (make(architecture, precision=precision) for make in (make_policy, make_classifier))
        batching = Batching(PAD, 10_000)
        rows = (logprobs_of(policy, EXAMPLES, batching), shared_values_of(policy, value_head(policy), EXAMPLES, batching))
        return [
            *map(torch.cat, (*rows, values_of(classifier, EXAMPLES, batching))),
            scores_of(classifier, EXAMPLES, batching),
        ]

    for exact, rounded in zip(said("float32"), said("bfloat16"), strict=True):
        assert rounded.dtype == torch.float32
        assert 1e-4 < (exact - rounded).abs().mean() < 0.1


def test_weights_in_bfloat16_are_near_float32(policy: PreTrainedModel, architecture: str) -> None:
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
