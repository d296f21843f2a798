"""The reward model: learns from rankings which response people prefer (SPEC section 3)."""

from __future__ import annotations

import _checkout  # noqa: F401

from rlhf.runtime.stage import stage

if __name__ == "__main__":
    stage(__file__)  # leaves

from typing import Any

from rlhf.data.files import read_records
from rlhf.data.gold import load_gold
from rlhf.labeling.agreement import beside_the_noise
from rlhf.labeling.held_out import beside_the_gold, held_out_figures, label_gaps, reliability
from rlhf.models.adapters import SFT, adapt
from rlhf.models.batching import Batching
from rlhf.models.card import write_reward_model
from rlhf.models.forward import scores_of
from rlhf.models.policy import context_of
from rlhf.models.reward import centre_scores, reward_model_from_policy
from rlhf.models.tokens import load_tokenizer, pad_id
from rlhf.records import SPLITS, Ranking, Responses
from rlhf.runtime.engine import make_engine
from rlhf.runtime.outputs import write_curve
from rlhf.runtime.run import Run
from rlhf.training import reward as training
from rlhf.training.loop import LoopState, Passes
from rlhf.training.rows import refuse_dropped, say_truncated


def main(run: Run) -> None:
    """Learns the train rankings, moves its zero to the mean SFT response, and says how well it knows held-out ones."""
    config, reward = run.config, run.config.reward
    tokenizer = load_tokenizer(run.read("sft", "model"))
    model = reward_model_from_policy(run.read("sft", "model"), run.device, config.engine, run.seed("head"), reward.layers)
    adapt(model, config.lora, run.seed("adapter"), SFT)
    batching = Batching(pad_id(tokenizer), config.engine.tokens_per_micro_batch)
    rankings = read_records(run.read("label", "rankings.jsonl"), Ranking)
    context = context_of(model, config.model.max_tokens)
    by_split = {split: [r for r in rankings if r.split == split] for split in SPLITS}
    rows = {split: training.ranked_examples(asked, tokenizer, context) for split, asked in by_split.items()}
    train = rows["train"]
    refuse_dropped("reward", train.dropped, len(train.rows), reward.max_dropped_share, context)
    say_truncated(run, train.truncated, len(train.rows), context)

    passes = Passes(reward.epochs, reward.prompts_per_step, reward.eval_every_steps, run.seed("rows"))
    steps = passes.steps(len(train.rows))
    engine = make_engine(model, reward.lr, reward.warmup_share, steps, config.optimizer, config.engine)
    state = LoopState(engine)
    learning = training.train_reward(state, train.rows, rows["validation"].rows, passes, batching, reward.label_smoothing)
    run.follow_to_end(learning, steps, state)
    about = f"Trained on rankings of {len(train.rows)} prompts by labeler {config.labeler.name} (Bradley-Terry)."
    with engine.whole():
        if reward.centre:
            responses = read_records(run.read("sample", "responses.jsonl"), Responses)
            sampled = training.sampled_examples(responses, tokenizer, context)
            centre_scores(model, scores_of(model, sampled, batching), reward.scale)
        write_reward_model(model, tokenizer, run.output / "model", about)
        scores = {split: training.score_rows(model, kept.rows, batching) for split, kept in rows.items() if kept.rows}
    counts = {"prompts": len(train.rows), "truncated_prompts": train.truncated, "dropped": train.dropped, "tied": train.tied}
    metrics: dict[str, Any] = counts | {split: training.report(told, rows[split].rows) for split, told in scores.items()}
    if "test" in scores:
        test, told = rows["test"], scores["test"]
        metrics["test"] |= held_out_figures(told, training.lengths_of(test.rows), test.rankings)
        write_curve(run.output / "calibration.csv", reliability(label_gaps(told, test.rankings)))
        if gold := load_gold(run.find):
            accuracy = metrics["test"]["accuracy"]
            if config.labeler.name == "gold":
                metrics["test"] |= beside_the_noise(accuracy, by_split["test"], gold, config.labeler.temperature)
            metrics["test"] |= beside_the_gold(told, test.rankings, gold)
    run.finish(metrics)
    run.log_model(run.output / "model")
