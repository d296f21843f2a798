"""A policy of a sweep takes the exam of artifacts/evaluate."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from rlhf.data.files import write_records
from rlhf.evaluation.answers import GREEDY, INDEPENDENT, SAMPLED, SFT
from rlhf.evaluation.contest import contest, held_against, metrics_of
from rlhf.evaluation.exam import open_exam
from rlhf.evaluation.swept.held_against import exam_seed
from rlhf.evaluation.written import RESPONSES, comparisons, read_answers
from rlhf.models.policy import load_policy
from rlhf.runtime.run import Run


def examine(run: Run, name: str) -> None:
    """Reads model/ beside the run's output; writes the policy's answers and figures, in the form of artifacts/evaluate.

    What SFT answered is read there: it would say the same again.
    """
    run = replace(run, config=run.config.model_copy(update={"seed": exam_seed(run.root)}))
    seed = run.seed("answers")
    exam, judges = open_exam(run)
    _, answers = read_answers(run.read("evaluate", RESPONSES))
    sampled, opponent, greedy = (answers[SFT, decoding] for decoding in (SAMPLED, INDEPENDENT, GREEDY))
    yardsticks = held_against(sampled, opponent, greedy, exam, judges, run.config.evaluate, seed)
    policy = partial(load_policy, run.output.parent / "model", run.device, run.config.engine)
    contestants = list(contest({name: policy}, exam, judges, yardsticks, seed))
    write_records(run.output / RESPONSES, comparisons(exam.prompts, contestants))
    run.finish(metrics_of(contestants, {})[name])
