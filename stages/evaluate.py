"""Asks every model the same held-out prompts and compares what they answer (SPEC section 6)."""

from __future__ import annotations

import _checkout  # noqa: F401

from rlhf.runtime.stage import stage

if __name__ == "__main__":
    stage(__file__)  # leaves

from functools import partial
from itertools import chain, count, tee

from rlhf.evaluation.answers import SAMPLED
from rlhf.evaluation.contest import about_the_exam, best_of_n, contest, contestants_in, pool_of, yardsticks_of
from rlhf.evaluation.exam import open_exam
from rlhf.evaluation.paths import Way, last_step, on_the_way, snapshots_in
from rlhf.evaluation.report import curve_row
from rlhf.evaluation.results import write_results
from rlhf.models.policy import load_policy
from rlhf.models.tokens import load_tokenizer, same_tokens
from rlhf.runtime.run import Run

MODELS = ("base", "sft", "ppo", "dpo")


def main(run: Run) -> None:
    """Loads the judges, lets one policy after the other answer, and writes figures, answers, tables and plots."""
    settings, seed = run.config.evaluate, run.seed("answers")
    tokenizer = load_tokenizer(run.read("sft", "model"))
    for other in (*MODELS, "reward"):
        same_tokens(tokenizer, load_tokenizer(run.read(other, "model")), "artifacts/sft/model", f"artifacts/{other}/model")
    load = partial(load_policy, device=run.device, engine=run.config.engine)
    policies = {model: partial(load, run.read(model, "model")) for model in MODELS}
    training = run.read("ppo", "metrics.json").parent
    kept = {step: partial(load, place) for step, place in snapshots_in(training).items()}
    exam, judges = open_exam(run)
    drawn = settings.best_of_up_to + settings.best_of + 2
    run.say(f"lets SFT answer {len(exam.prompts)} prompts {drawn} times, for the others to be held against")
    yardsticks = yardsticks_of(exam, judges, settings, seed)
    pool = pool_of(exam, judges, yardsticks[SAMPLED], settings.best_of_up_to, seed)
    best = best_of_n(pool, exam, judges, yardsticks, settings.best_of, seed)

    entrants = contestants_in(policies) + 1
    asked = chain(
        contest(policies, exam, judges, yardsticks, seed),
        [best],
        on_the_way(kept, exam, judges, yardsticks[SAMPLED], seed),
    )
    answering, shown = tee(asked)
    rows = run.follow(map(curve_row, count(1), shown), entrants + len(kept))
    answered = [contestant for contestant, _ in zip(answering, rows, strict=True)]
    contestants, way = answered[:entrants], Way(answered[entrants:], last_step(training))
    about = about_the_exam(contestants, exam, judges, yardsticks[SAMPLED], settings, seed)
    run.finish(write_results(run.output, exam, judges, contestants, way, pool, about, settings, seed))
