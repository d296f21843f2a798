"""Lets policies answer the held-out prompts, and the judges say what each answer is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rlhf.evaluation.answers import Answers
from rlhf.evaluation.exam import Exam, Judges
from rlhf.evaluation.raters import Rater
from rlhf.evaluation.statistics import Floats
from rlhf.models.forward import logprobs_of, scores_of, summed_logprobs_of
from rlhf.models.generation import Generated, generate
from rlhf.models.policy import PreTrainedModel
from rlhf.models.tokens import Example, decode_response


def answer(policy: PreTrainedModel, exam: Exam, judges: Judges, temperature: float | None, seed: int) -> Answers:
    """The policy's own answers, judged, with their KL."""
    generated = generate(policy, exam.prompt_ids, exam.decoding, temperature, seed)
    examples = _examples(exam, generated)
    kl = _summed_logps(policy, examples, exam) - _summed_logps(judges.reference, examples, exam)
    return replace(judge(generated, exam, judges), kl=kl)


def draw_pool(exam: Exam, judges: Judges, seeds: Sequence[int]) -> list[Answers]:
    """SFT's sampled answers, one to each prompt for each of the seeds, to choose from."""
    draws = (generate(judges.reference, exam.prompt_ids, exam.decoding, exam.temperature, seed) for seed in seeds)
    return [judge(generated, exam, judges) for generated in draws]


def judge(generated: Sequence[Generated], exam: Exam, judges: Judges) -> Answers:
    """What each answer is worth. Tokens go from one model to the next as they are, never through text."""
    texts = [decode_response(exam.tokenizer, g.response_ids) for g in generated]
    return Answers(
        texts=texts,
        ended=np.array([g.ended for g in generated], dtype=np.float64),
        tokens=np.array([len(g.response_ids) for g in generated], dtype=np.float64),
        rewards=_numbers(scores_of(judges.reward_model, _examples(exam, generated), exam.batching)),
        kl=None,
        gold=judges.rater.rate(exam.prompts, texts) if judges.rater else {},
    )


def best_gold_scores(policy: PreTrainedModel, exam: Exam, rater: Rater, prompts: int, n: int, seed: int) -> Floats:
    """(prompts,) the highest gold score among n sampled answers, for the first so many prompts: what is possible."""
    asked, ids = exam.prompts[:prompts], exam.prompt_ids[:prompts]
    generated = generate(policy, ids * n, exam.decoding, exam.temperature, seed)
    texts = [decode_response(exam.tokenizer, g.response_ids) for g in generated]
    return rater.rate(asked * n, texts)["gold_score"].reshape(n, len(asked)).max(0)


def demonstrations_nll(policy: PreTrainedModel, exam: Exam) -> float | None:
    """−log π of the held-out demonstrations, nats per response token; None where there are none."""
    if not exam.demonstrations:
        return None
    logprobs = torch.cat(logprobs_of(policy, exam.demonstrations, exam.batching))
    return -float(logprobs.double().mean())


def _examples(exam: Exam, generated: Sequence[Generated]) -> list[Example]:
    return [Example(ids, g.response_ids) for ids, g in zip(exam.prompt_ids, generated, strict=True)]


def _summed_logps(policy: PreTrainedModel, examples: list[Example], exam: Exam) -> Floats:
    """(N,) log-probability of each response at the exam's temperature, nats."""
    return _numbers(summed_logprobs_of(policy, examples, exam.batching, exam.temperature))


def _numbers(values: Tensor) -> Floats:
    return values.double().cpu().numpy()
