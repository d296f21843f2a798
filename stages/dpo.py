"""Direct preference optimization: the SFT policy learns the preferences without a reward model (SPEC section 5)."""

from __future__ import annotations

import _checkout  # noqa: F401

from rlhf.data.files import read_records
from rlhf.models.card import POLICY, write_card
from rlhf.models.forward import Batching
from rlhf.models.policy import context_of, load_policy, save_policy
from rlhf.models.tokens import load_tokenizer, pad_id
from rlhf.records import Preference, Prompt
from rlhf.runtime.engine import make_engine
from rlhf.runtime.stage import Run, stage
from rlhf.training.dpo import paired_examples, train_dpo, with_reference
from rlhf.training.loop import LoopState, Passes
from rlhf.training.rows import refuse_dropped
from rlhf.training.watch import gold_judge, make_watch


def main(run: Run) -> None:
    """Asks the reference once for its log-probabilities, learns the pairs, and writes the policy."""
    config, dpo = run.config, run.config.dpo
    tokenizer = load_tokenizer(run.read("sft", "model"))
    policy = load_policy(run.read("sft", "model"), run.device, config.engine.dtype)
    batching = Batching(pad_id(tokenizer), config.engine.tokens_per_micro_batch)
    preferences = read_records(run.read("label", "preferences.jsonl"), Preference)
    context = context_of(policy, config.model.max_tokens)
    train, validation = (
        paired_examples([p for p in preferences if p.split == split], tokenizer, context)
        for split in ("train", "validation")
    )
    refuse_dropped("dpo", train.dropped, len(train.rows), dpo.max_dropped_share, context)
    reference = load_policy(run.read("sft", "model"), run.device, config.engine.dtype)
    run.say(f"asks the reference once for {len(train.rows) + len(validation.rows)} prompts")
    learned, held_out = (with_reference(reference, rows, batching) for rows in (train.rows, validation.rows))
    watch = make_watch(
        config,
        reference,
        tokenizer,
        read_records(run.read("prepare", "prompts.jsonl"), Prompt),
        gold_judge(run.find("prepare", "world.yaml"), tokenizer),
        most=dpo.eval_prompts,
        temperature=1.0,
        seed=run.seed("watch"),
    )

    passes = Passes(dpo.epochs, dpo.prompts_per_step, dpo.eval_every_steps, run.seed("rows"))
    steps = passes.steps(len(learned))
    engine = make_engine(policy, dpo.lr, dpo.warmup_share, steps, config.optimizer, config.engine)
    rows = train_dpo(LoopState(engine), learned, held_out, passes, batching, watch, dpo)
    last = run.follow_to_end(rows, steps)
    save_policy(policy, tokenizer, run.output / "model", config.data.max_response_tokens)
    write_card(run.output / "model", POLICY, "DPO policy", f"Direct preference optimization of SFT, beta {dpo.beta}.")
    counts = {"prompts": len(train.rows), "pairs": sum(len(row.pairs) for row in train.rows)}
    run.finish(counts | {"truncated_prompts": train.truncated, "dropped": train.dropped} | last)
    run.log_model(run.output / "model")


if __name__ == "__main__":
    stage(main)
