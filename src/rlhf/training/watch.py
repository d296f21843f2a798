"""What a policy in training says: its own answers to validation prompts, with the same random numbers every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf import config
from rlhf.data.gold import GoldRater
from rlhf.maths.kl import k1
from rlhf.models.batching import Batching
from rlhf.models.forward import logprobs_of
from rlhf.models.generation import Decoding, decoding_of
from rlhf.models.policy import context_of
from rlhf.models.tokens import Example, decode_response, encode_prompt, pad_id, prompt_room
from rlhf.records import Messages, Prompt
from rlhf.training.loop import Said
from rlhf.training.rollout import sample_responses

Judge = Callable[[Sequence[Prompt], Sequence[Example]], list[float]]


@dataclass(frozen=True)
class Watch:
    """Whom to ask what, and what to hold the answers against.

    judge: the gold score of each answer where there is a gold rater: for the record, unless the settings name it.
    shown: the first of the prompts, whose answers are also kept to be read.
    """

    reference: PreTrainedModel
    prompts: list[list[int]]
    truncated_prompts: int
    decoding: Decoding
    batching: Batching
    temperature: float
    seed: int
    judge: Callable[[Sequence[Example]], list[float]] | None = None
    shown: list[Messages] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the policy: its answers, what each is worth to whom (`score`, `gold_score`), and their figures."""

    examples: list[Example]
    scores: dict[str, list[float]]
    figures: dict[str, float]


def look(policy: PreTrainedModel, watch: Watch) -> Look:
    """The policy's answers, and their figures: signed KL summed per response, lengths, how many ended, gold."""
    examples, ended = sample_responses(policy, watch.prompts, watch.decoding, watch.temperature, watch.seed)
    now, then = (logprobs_of(model, examples, watch.batching, watch.temperature) for model in (policy, watch.reference))
    figures = {
        "validation_kl_per_response": sum(float(k1(a, b).sum()) for a, b in zip(now, then, strict=True)) / len(examples),
        "validation_response_tokens": sum(len(e.response_ids) for e in examples) / len(examples),
        "validation_ended": float(ended.double().mean()),
    }
    if watch.judge is None:
        return Look(examples, {}, figures)
    gold = watch.judge(examples)
    return Look(examples, {"gold_score": gold}, figures | {"validation_gold_score": sum(gold) / len(gold)})


def said(step: int, seen: Look, watch: Watch) -> Said:
    """What of a look is kept to be read."""
    count = len(watch.shown)
    scores = {name: values[:count] for name, values in seen.scores.items()}
    return Said(step, [e.response_ids for e in seen.examples[:count]], scores)


def make_watch(
    settings: config.Config,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    judge: Judge | None,
    *,
    most: int,
    shown: int,
    temperature: float,
    seed: int,
) -> Watch | None:
    """The first `most` validation prompts, as the context lets them be asked; None where there are none."""
    chosen = [p for p in prompts if p.split == "validation"][:most]
    if not chosen:
        return None
    room = prompt_room(context_of(reference, settings.model.max_tokens), settings.data.max_response_tokens)
    encoded = [encode_prompt(tokenizer, p.prompt, room) for p in chosen]
    return Watch(
        reference=reference.requires_grad_(False),
        prompts=[ids for ids, _ in encoded],
        truncated_prompts=sum(truncated for _, truncated in encoded),
        decoding=decoding_of(tokenizer, settings),
        batching=Batching(pad_id(tokenizer), settings.engine.tokens_per_micro_batch),
        temperature=temperature,
        seed=seed,
        judge=(lambda examples: judge(chosen, examples)) if judge else None,
        shown=[p.prompt for p in chosen[:shown]],
    )


def gold_judge(gold: GoldRater | None, tokenizer: PreTrainedTokenizerBase) -> Judge | None:
    """Gold scores of responses to prompts; None where there is no gold rater."""
    if gold is None:
        return None

    def judge(prompts: Sequence[Prompt], examples: Sequence[Example]) -> list[float]:
        pairs = zip(prompts, examples, strict=True)
        return [gold.rate(p.prompt[-1].content, decode_response(tokenizer, e.response_ids)).gold for p, e in pairs]

    return judge
