"""Asks every model the same held-out prompts and compares what they answer (SPEC section 6)."""

from __future__ import annotations

import _checkout  # noqa: F401

from functools import partial
from itertools import count, tee

from rlhf.data.files import read_records, write_records
from rlhf.data.world import load_world
from rlhf.evaluation import plots, report
from rlhf.evaluation.answers import Judges, families_of, set_exam
from rlhf.evaluation.contest import SAMPLED, about_the_exam, contest, contestants_in, metrics_of, yardsticks_of
from rlhf.models.policy import context_of, load_policy
from rlhf.models.reward import load_reward_model
from rlhf.models.tokens import load_tokenizer, same_tokens
from rlhf.records import Demonstration, Prompt
from rlhf.runtime.run import Run
from rlhf.runtime.stage import stage

MODELS = ("base", "sft", "ppo", "dpo")


def main(run: Run) -> None:
    """Loads the judges, lets one policy after the other answer, and writes figures, answers, tables and plots."""
    config, settings, seed = run.config, run.config.evaluate, run.seed("answers")
    tokenizer = load_tokenizer(run.read("sft", "model"))
    for other in (*MODELS, "reward"):
        same_tokens(tokenizer, load_tokenizer(run.read(other, "model")), "artifacts/sft/model", f"artifacts/{other}/model")
    load = partial(load_policy, device=run.device, dtype=config.engine.dtype)
    policies = {model: partial(load, run.read(model, "model")) for model in MODELS}
    table = run.find("prepare", "world.yaml")
    judges = Judges(
        reference=policies["sft"](),
        reward_model=load_reward_model(run.read("reward", "model"), run.device, config.engine.dtype),
        world=load_world(table) if table else None,
    )
    exam = set_exam(
        [p for p in read_records(run.read("prepare", "prompts.jsonl"), Prompt) if p.split == "test"],
        [d for d in read_records(run.read("prepare", "demonstrations.jsonl"), Demonstration) if d.split == "test"],
        tokenizer,
        context_of(judges.reference, config.model.max_tokens),
        config,
    )
    run.say(f"lets SFT answer {len(exam.prompts)} prompts three times, for the others to be held against")
    yardsticks = yardsticks_of(exam, judges, settings, seed)
    answering, shown = tee(contest(policies, exam, judges, yardsticks, settings, seed))
    rows = run.follow(map(report.curve_row, count(1), shown), contestants_in(policies))
    contestants = [contestant for contestant, _ in zip(answering, rows, strict=True)]

    metrics = metrics_of(contestants, about_the_exam(contestants, exam, judges, yardsticks[SAMPLED], settings, seed))
    write_records(run.output / "responses.jsonl", report.comparisons(exam.prompts, contestants))
    (run.output / "table.md").write_text(report.table(metrics), encoding="utf-8")
    chosen = report.spread(families_of(exam, judges), settings.shown_prompts)
    (run.output / "side_by_side.md").write_text(report.side_by_side(exam.prompts, contestants, chosen), encoding="utf-8")
    plots.draw(metrics, run.output)
    run.finish(metrics)


if __name__ == "__main__":
    stage(main)
