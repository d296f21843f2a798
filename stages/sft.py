"""Supervised fine-tuning: the base model learns to answer as the demonstrations do (SPEC section 2)."""

from __future__ import annotations

import _checkout  # noqa: F401

from rlhf.runtime.stage import stage

if __name__ == "__main__":
    stage(__file__)  # leaves

from rlhf.data.files import read_records
from rlhf.models.adapters import BASE, adapt
from rlhf.models.batching import Batching
from rlhf.models.card import write_policy
from rlhf.models.policy import context_of, load_policy
from rlhf.models.tokens import load_tokenizer, pad_id
from rlhf.records import Demonstration
from rlhf.runtime.engine import make_engine
from rlhf.runtime.run import Run
from rlhf.training.loop import LoopState, Passes
from rlhf.training.rows import refuse_dropped, say_truncated
from rlhf.training.sft import demonstration_examples, train_sft


def main(run: Run) -> None:
    """Fits the demonstrations to the context, learns their responses, and writes the policy all later stages start from."""
    config, sft = run.config, run.config.sft
    tokenizer = load_tokenizer(run.read("base", "model"))
    policy = load_policy(run.read("base", "model"), run.device, config.engine)
    adapt(policy, config.lora, run.seed("adapter"), BASE)
    demonstrations = read_records(run.read("prepare", "demonstrations.jsonl"), Demonstration)
    context = context_of(policy, config.model.max_tokens)
    train, validation = (
        demonstration_examples([d for d in demonstrations if d.split == split], tokenizer, context)
        for split in ("train", "validation")
    )
    refuse_dropped("sft", train.dropped, len(train.examples), sft.max_dropped_share, context)
    say_truncated(run, train.truncated, len(train.examples), context)

    passes = Passes(sft.epochs, sft.demonstrations_per_step, sft.eval_every_steps, run.seed("rows"))
    batching = Batching(pad_id(tokenizer), config.engine.tokens_per_micro_batch)
    steps = passes.steps(len(train.examples))
    engine = make_engine(policy, sft.lr, sft.warmup_share, steps, config.optimizer, config.engine)
    state = LoopState(engine)
    rows = train_sft(state, train.examples, validation.examples, passes, batching)
    last = run.follow_to_end(rows, steps, state)
    about = "Supervised fine-tuning on demonstrations."
    with engine.whole():
        write_policy(
            policy, tokenizer, run.output / "model", "SFT policy", about, max_response_tokens=config.data.max_response_tokens
        )
    run.finish(
        {
            "demonstrations": len(train.examples),
            "truncated_prompts": train.truncated,
            "dropped": train.dropped,
            "steps": last["step"],
            "loss": last["loss"],
            "validation_loss": last.get("validation_loss", last["loss"]),
        }
    )
    run.log_model(run.output / "model")
