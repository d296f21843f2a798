"""Responses to label: really sampled, K a prompt, from one model or evenly from several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rlhf.config import Config, PromptsPerSplit
from rlhf.models.generation import Decoding, decoding_of, generate
from rlhf.models.policy import PreTrainedModel, context_of
from rlhf.models.tokens import PreTrainedTokenizerBase, decode_response, encode_prompt, prompt_room
from rlhf.records import SPLITS, Prompt, Response, Responses
from rlhf.seeds import derive_seed

RESPONSES_A_PART = 512  # of one model: after so many there is a row to see; each part draws random numbers of its own


@dataclass(frozen=True, slots=True)
class Draw:
    """What was sampled for some of the prompts; `prompts_done` counts them and all before."""

    prompts_done: int
    responses: list[Responses]
    response_tokens: int  # in all of them together, end tokens included
    truncated_prompts: int


@dataclass(frozen=True, slots=True)
class Sampler:
    """How responses are drawn."""

    policies: Mapping[str, PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase
    responses_per_prompt: int
    max_prompt_tokens: int
    decoding: Decoding
    temperature: float


def make_sampler(config: Config, tokenizer: PreTrainedTokenizerBase, policies: Mapping[str, PreTrainedModel]) -> Sampler:
    """As `sample`, `model` and `data` say; the prompt gets what the shortest context leaves beside the longest response."""
    context = min(context_of(policy, config.model.max_tokens) for policy in policies.values())
    return Sampler(
        policies=policies,
        tokenizer=tokenizer,
        responses_per_prompt=config.sample.responses_per_prompt,
        max_prompt_tokens=prompt_room(context, config.data.max_response_tokens),
        decoding=decoding_of(tokenizer, config),
        temperature=config.sample.temperature,
    )


def choose_prompts(prompts: Sequence[Prompt], most: PromptsPerSplit) -> list[Prompt]:
    """The first `most` prompts of every split, in the order of the file."""
    return [prompt for split in SPLITS for prompt in [p for p in prompts if p.split == split][: getattr(most, split)]]


def draw(sampler: Sampler, prompts: Sequence[Prompt], seed: int) -> Iterator[Draw]:
    """Responses to the prompts, in order, a part of the prompts at a time."""
    at_once = max(1, RESPONSES_A_PART * len(sampler.policies) // sampler.responses_per_prompt)
    for start in range(0, len(prompts), at_once):
        yield _draw(sampler, prompts[start : start + at_once], start, derive_seed(seed, start))


def _draw(sampler: Sampler, prompts: Sequence[Prompt], done: int, seed: int) -> Draw:
    encoded = [encode_prompt(sampler.tokenizer, prompt.prompt, sampler.max_prompt_tokens) for prompt in prompts]
    each = sampler.responses_per_prompt // len(sampler.policies)
    asked = [ids for ids, _ in encoded for _ in range(each)]
    answers: list[list[Response]] = [[] for _ in prompts]
    tokens = 0
    for name, policy in sampler.policies.items():
        generated = generate(policy, asked, sampler.decoding, sampler.temperature, derive_seed(seed, name))
        tokens += sum(len(g.response_ids) for g in generated)
        for i, g in enumerate(generated):
            text = decode_response(sampler.tokenizer, g.response_ids)
            answers[i // each].append(Response(text, g.ended, name, tuple(g.response_ids)))
    responses = [Responses(p.prompt, tuple(given), p.split) for p, given in zip(prompts, answers, strict=True)]
    return Draw(done + len(prompts), responses, tokens, sum(truncated for _, truncated in encoded))


def figures_of(draws: Sequence[Draw]) -> dict[str, float]:
    """How the responses look. `distinct_share` is over the K responses to a prompt: 1 / K where all are the same."""
    drawn = [responses for draw in draws for responses in draw.responses]
    answers = [response for responses in drawn for response in responses.responses]
    distinct = sum(len({response.text for response in responses.responses}) for responses in drawn)
    return {
        "ended": sum(response.ended for response in answers) / len(answers),
        "response_tokens": sum(draw.response_tokens for draw in draws) / len(answers),
        "distinct_share": distinct / len(answers),
        "truncated_prompts": sum(draw.truncated_prompts for draw in draws),
    }


def progress_row(draw: Draw) -> dict[str, float]:
    """A row of curve.csv: the figures of one draw, at how many prompts are done."""
    return {"step": draw.prompts_done} | figures_of([draw])
