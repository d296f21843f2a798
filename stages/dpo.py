"""Direct preference optimization: the SFT policy learns the preferences without a reward model (SPEC section 5)."""

from __future__ import annotations

from rlhf.data.files import read_records
from rlhf.models.card import POLICY, write_card
from rlhf.models.policy import context_of, load_policy, save_policy
from rlhf.models.tokens import load_tokenizer, pad_id
from rlhf.records import Preference
from rlhf.runtime.engine import make_engine
from rlhf.runtime.stage import Run, stage
from rlhf.training.dpo import DPOState, dpo_steps, implicit_rewards, paired_examples, train_dpo, with_reference
from rlhf.training.rows import refuse_dropped


def main(run: Run) -> None:
    """Asks the reference once for its log-probabilities, learns the pairs, and writes the policy."""
    config, dpo = run.config, run.config.dpo
    tokenizer = load_tokenizer(run.read("sft", "model"))
    policy = load_policy(run.read("sft", "model"), run.device, config.engine.dtype)
    sizes = (pad_id(tokenizer), config.engine.tokens_per_micro_batch)
    preferences = read_records(run.read("label", "preferences.jsonl"), Preference)
    context = context_of(policy, config.model.max_tokens)
    train, validation = (
        paired_examples([p for p in preferences if p.split == split], tokenizer, context)
        for split in ("train", "validation")
    )
    refuse_dropped("dpo", train.dropped, len(train.rows), dpo.max_dropped_share, context)
    # Before its first step the policy is the reference, so one model serves for both.
    learned, held_out = (with_reference(policy, rows, *sizes) for rows in (train.rows, validation.rows))

    steps = dpo_steps(len(learned), dpo.epochs, dpo.prompts_per_step)
    rows = train_dpo(
        DPOState(make_engine(policy, dpo.lr, dpo.warmup_share, steps, config.optimizer, config.engine)),
        learned,
        held_out,
        epochs=dpo.epochs,
        prompts_per_step=dpo.prompts_per_step,
        eval_every_steps=dpo.eval_every_steps,
        beta=dpo.beta,
        label_smoothing=dpo.label_smoothing,
        tokens_per_micro_batch=sizes[1],
        pad_id=sizes[0],
        seed=run.seed("rows"),
    )
    for _ in run.follow(rows, steps):
        pass
    save_policy(policy, tokenizer, run.output / "model", config.data.max_response_tokens)
    write_card(
        run.output / "model", POLICY, "DPO policy", f"Direct preference optimization of the SFT policy, beta {dpo.beta}."
    )
    counts = {"prompts": len(train.rows), "pairs": sum(len(row.pairs) for row in train.rows)}
    figures = implicit_rewards(policy, held_out, dpo.beta, *sizes) if held_out else {}
    run.finish(counts | {"truncated_prompts": train.truncated, "dropped": train.dropped, "validation": figures})
    run.log_model(run.output / "model")


if __name__ == "__main__":
    stage(main)
