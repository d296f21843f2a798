"""What the policies answer to the held-out prompts, and what the judges say of each answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlhf.config import Config
from rlhf.data.world import GOLD_DECIMALS, World
from rlhf.errors import UserError
from rlhf.evaluation.statistics import Floats
from rlhf.models.forward import Batching, logprobs_of, scores_of, summed_logprobs_of
from rlhf.models.generation import Decoding, decoding_of, generate
from rlhf.models.policy import PreTrainedModel
from rlhf.models.tokens import (
    Example,
    PreTrainedTokenizerBase,
    decode_response,
    encode_prompt,
    encode_response,
    fit,
    pad_id,
    prompt_room,
)
from rlhf.records import Demonstration, Messages, Prompt

GOLD_FIGURES = ("gold_score", "help", "honest", "logic", "harm")


@dataclass(frozen=True, slots=True)
class Exam:
    """What every policy is asked, and how: the same prompts, limits and random numbers for all."""

    prompts: list[Messages]
    prompt_ids: list[list[int]]
    truncated_prompts: int
    demonstrations: list[Example]  # held out, with their responses
    references: list[str | None]  # a held-out demonstration of each prompt, where there is one
    tokenizer: PreTrainedTokenizerBase
    decoding: Decoding
    batching: Batching
    temperature: float


@dataclass(frozen=True, slots=True)
class Judges:
    """Who says what an answer is worth. `world` is the gold rater; without it the reward model judges alone."""

    reference: PreTrainedModel
    reward_model: PreTrainedModel
    world: World | None


@dataclass(frozen=True, slots=True)
class Answers:
    """One answer to each of N prompts. Arrays are (N,)."""

    texts: list[str]
    ended: Floats  # 1 or 0
    tokens: Floats  # response tokens, end token included
    rewards: Floats  # the reward model's scores
    kl: Floats | None  # signed log π − log π_SFT, nats a response; None where π has no log-probabilities of its own
    gold: dict[str, Floats]  # GOLD_FIGURES; empty without a gold rater

    @property
    def judged(self) -> Floats:
        """(N,) what a win is decided by: the gold score, or the reward model's where there is no gold rater."""
        return self.gold.get("gold_score", self.rewards)


def set_exam(
    prompts: Sequence[Prompt],
    demonstrations: Sequence[Demonstration],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    config: Config,
) -> Exam:
    """Encodes held-out prompts and demonstrations for a context of `max_tokens`; what does not fit there is left out.

    Raises:
        UserError: there is nothing to ask, or no room to ask it.
    """
    if not prompts:
        raise UserError("evaluate: there are 0 test prompts: raise prepare.test_share, or bring more prompts")
    room = prompt_room(max_tokens, config.data.max_response_tokens)
    encoded = [encode_prompt(tokenizer, asked.prompt, room) for asked in prompts]
    fitted = [fit(tokenizer, d.prompt, [encode_response(tokenizer, d.completion)], max_tokens) for d in demonstrations]
    first = {d.prompt: d.completion for d in reversed(demonstrations)}
    return Exam(
        prompts=[asked.prompt for asked in prompts],
        prompt_ids=[ids for ids, _ in encoded],
        truncated_prompts=sum(truncated for _, truncated in encoded),
        demonstrations=[example for fits in fitted if fits is not None for example in fits.examples],
        references=[first.get(asked.prompt) for asked in prompts],
        tokenizer=tokenizer,
        decoding=decoding_of(tokenizer, config),
        batching=Batching(pad_id(tokenizer), config.engine.tokens_per_micro_batch),
        temperature=config.evaluate.temperature,
    )


def answer(policy: PreTrainedModel, exam: Exam, judges: Judges, temperature: float | None, seed: int) -> Answers:
    """The policy's own answers, judged. Tokens go from one model to the next as they are, never through text."""
    generated = generate(policy, exam.prompt_ids, exam.decoding, temperature, seed)
    examples = [Example(ids, g.response_ids) for ids, g in zip(exam.prompt_ids, generated, strict=True)]
    texts = [decode_response(exam.tokenizer, g.response_ids) for g in generated]
    return Answers(
        texts=texts,
        ended=np.array([g.ended for g in generated], dtype=np.float64),
        tokens=np.array([len(g.response_ids) for g in generated], dtype=np.float64),
        rewards=_numbers(scores_of(judges.reward_model, examples, exam.batching)),
        kl=_summed_logps(policy, examples, exam) - _summed_logps(judges.reference, examples, exam),
        gold=rate(judges.world, exam.prompts, texts),
    )


def best_of(pool: Sequence[Answers]) -> Answers:
    """To each prompt, of several answers the one that the reward model likes best (the first of equals)."""
    best = np.stack([answers.rewards for answers in pool]).argmax(0)
    prompts = np.arange(len(best))

    def picked(name: Callable[[Answers], Floats]) -> Floats:
        return np.stack([name(answers) for answers in pool])[best, prompts]

    return Answers(
        texts=[pool[which].texts[i] for i, which in enumerate(best)],
        ended=picked(lambda answers: answers.ended),
        tokens=picked(lambda answers: answers.tokens),
        rewards=picked(lambda answers: answers.rewards),
        kl=None,
        gold={key: picked(lambda answers, key=key: answers.gold[key]) for key in pool[0].gold},  # type: ignore[misc]
    )


def best_gold_scores(policy: PreTrainedModel, exam: Exam, world: World, prompts: int, n: int, seed: int) -> Floats:
    """(prompts,) the highest gold score among n sampled answers, for the first so many prompts: what is possible."""
    asked, ids = exam.prompts[:prompts], exam.prompt_ids[:prompts]
    generated = generate(policy, ids * n, exam.decoding, exam.temperature, seed)
    texts = [decode_response(exam.tokenizer, g.response_ids) for g in generated]
    return rate(world, asked * n, texts)["gold_score"].reshape(n, len(asked)).max(0)


def perfect_gold_scores(world: World, prompts: Sequence[Messages]) -> Floats:
    """(N,) the gold score of the world's own perfect answer to each prompt."""
    questions = [messages[-1].content for messages in prompts]
    return np.array([world.rate(question, world.perfect_answer(question)).gold for question in questions], dtype=np.float64)


def families_of(exam: Exam, judges: Judges) -> list[str]:
    """The family of each prompt in the world; without one all prompts are of one kind."""
    return ["" if judges.world is None else judges.world.family(messages[-1].content) for messages in exam.prompts]


def rate(world: World | None, prompts: Sequence[Messages], texts: Sequence[str]) -> dict[str, Floats]:
    """GOLD_FIGURES of each answer, (N,) each; nothing without a gold rater."""
    if world is None:
        return {}
    ratings = [world.rate(messages[-1].content, text) for messages, text in zip(prompts, texts, strict=True)]
    rows = np.array([(r.gold, r.help, r.honest, r.logic, r.harm) for r in ratings], dtype=np.float64)
    return dict(zip(GOLD_FIGURES, rows.T.round(GOLD_DECIMALS), strict=True))


def demonstrations_nll(policy: PreTrainedModel, exam: Exam) -> float | None:
    """−log π of the held-out demonstrations, nats per response token; None where there are none."""
    if not exam.demonstrations:
        return None
    logprobs = torch.cat(logprobs_of(policy, exam.demonstrations, exam.batching))
    return -float(logprobs.double().mean())


def _summed_logps(policy: PreTrainedModel, examples: list[Example], exam: Exam) -> Floats:
    """(N,) log-probability of each response at the exam's temperature, nats."""
    return _numbers(summed_logprobs_of(policy, examples, exam.batching, exam.temperature))


def _numbers(values: Tensor) -> Floats:
    return values.double().cpu().numpy()
