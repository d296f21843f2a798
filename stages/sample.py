"""Draws responses to prompts from one model or several, for labelling (SPEC section 1)."""

from __future__ import annotations

import _checkout  # noqa: F401

from rlhf.runtime.stage import stage

if __name__ == "__main__":
    stage(__file__)  # leaves

from itertools import tee

from rlhf.data.files import read_records, write_records
from rlhf.errors import UserError
from rlhf.labeling.sampling import choose_prompts, draw, figures_of, make_sampler, progress_row
from rlhf.models.policy import context_of, load_policy
from rlhf.models.tokens import load_tokenizer, same_tokens
from rlhf.records import SPLITS, Prompt
from rlhf.runtime.run import Run
from rlhf.training.rows import say_truncated


def main(run: Run) -> None:
    """Chooses prompts of every split, lets the models answer each K times, and writes what they said."""
    config, settings = run.config, run.config.sample
    prompts = choose_prompts(read_records(run.read("prepare", "prompts.jsonl"), Prompt), settings.prompts)
    if not prompts:
        raise UserError("sample: there are no prompts to answer: raise sample.prompts or data.prompts")
    paths = {str(model): run.read(model, "model") for model in settings.models}
    tokenizer = load_tokenizer(run.read("sft", "model"))
    for model, path in paths.items():
        same_tokens(tokenizer, load_tokenizer(path), "artifacts/sft/model", f"artifacts/{model}/model")
    policies = {model: load_policy(path, run.device, config.engine) for model, path in paths.items()}
    context = min(context_of(policy, config.model.max_tokens) for policy in policies.values())
    drawing, shown = tee(draw(make_sampler(config, tokenizer, policies), prompts, run.seed("responses")))
    rows = run.follow(map(progress_row, shown), total=len(prompts))
    draws = [drawn for drawn, _ in zip(drawing, rows, strict=True)]

    figures = figures_of(draws)
    say_truncated(run, int(figures["truncated_prompts"]), len(prompts), context)
    write_records(run.output / "responses.jsonl", [responses for drawn in draws for responses in drawn.responses])
    per_split = {split: sum(prompt.split == split for prompt in prompts) for split in SPLITS}
    run.finish(figures | {"prompts": per_split})
