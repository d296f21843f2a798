"""Supervised learning on responses: the loss of their tokens, end token included, and of nothing else (SPEC section 2).

Pretraining is the same loop on documents: a document is a response to the start token alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.maths.losses import sft_loss
from rlhf.models.batching import Batching
from rlhf.models.forward import logprobs_of, response_logprobs
from rlhf.models.tokens import Batch, Example, collate, encode_response, end_id, fit
from rlhf.records import Demonstration
from rlhf.runtime.engine import Engine
from rlhf.training.loop import LoopState, Passes


@dataclass(frozen=True, slots=True)
class Examples:
    """What became of rows that had to fit the context: how many prompts were cut, how many rows dropped."""

    examples: list[Example]
    truncated: int
    dropped: int


def demonstration_examples(
    demonstrations: Sequence[Demonstration], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> Examples:
    """Demonstrations as ids within the context; one is dropped only if its response leaves no room for the prompt."""
    fitted = [fit(tokenizer, d.prompt, [encode_response(tokenizer, d.completion)], max_tokens) for d in demonstrations]
    kept = [f for f in fitted if f is not None]
    return Examples([f.examples[0] for f in kept], truncated=sum(f.truncated for f in kept), dropped=len(fitted) - len(kept))


def document_examples(documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[Example]:
    """Documents as responses to the start token (the end token, where there is no start token), cut to the context."""
    start = end_id(tokenizer) if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return [Example([int(start)], encode_response(tokenizer, text)[: max_tokens - 1]) for text in documents]


def train_sft(
    state: LoopState, train: Sequence[Example], validation: Sequence[Example], passes: Passes, batching: Batching
) -> Iterator[dict[str, float]]:
    """Steps to the end of the last epoch; a row each, with the validation loss every so often and at the end."""
    policy = state.engine.model
    assert isinstance(policy, PreTrainedModel)
    while state.step < passes.steps(len(train)):
        rows = passes.draw(len(train), state.step)
        row = _learn(state.engine, policy, [train[i] for i in rows], batching)
        state.step += 1
        if validation and passes.evaluates(len(train), state.step):
            with state.engine.whole():
                row["validation_loss"] = nll(policy, validation, batching)
        yield {"step": state.step} | row


def _learn(engine: Engine, policy: PreTrainedModel, examples: Sequence[Example], batching: Batching) -> dict[str, float]:
    """One step on the mean over all the response tokens of the step."""
    device = next(policy.parameters()).device
    tokens = sum(len(e.response_ids) for e in examples)
    groups = batching.cut([len(e) for e in examples])
    batches = [collate([examples[i] for i in group], batching.pad_id).to(device) for group in groups]

    def loss_of(batch: Batch) -> tuple[Tensor, float]:
        loss = sft_loss(response_logprobs(policy, batch), batch.response_mask, normaliser=tokens)
        return loss, loss.item()

    done = engine.step(batches, loss_of)
    return {"loss": sum(done.told), "gradient_norm": done.norm, "lr": engine.lr, "response_tokens": tokens}


def nll(policy: PreTrainedModel, examples: Sequence[Example], batching: Batching) -> float:
    """Mean negative log-likelihood of the response tokens of all the examples, nats per token."""
    logprobs = logprobs_of(policy, examples, batching)
    return -sum(float(row.double().sum()) for row in logprobs) / sum(len(row) for row in logprobs)
