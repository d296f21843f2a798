"""Direct preference optimization: the SFT policy learns the preferences without a reward model (SPEC section 5)."""

from __future__ import annotations

import _checkout  # noqa: F401

from rlhf.evaluation.swept import POLICIES
from rlhf.runtime.stage import stage

if __name__ == "__main__":
    stage(__file__, POLICIES)  # leaves

from collections.abc import Sequence
from functools import partial

from rlhf.data.files import read_records, write_records
from rlhf.data.gold import load_gold, require_gold
from rlhf.labeling.on_policy import answer_and_label
from rlhf.labeling.sampling import make_sampler
from rlhf.models.adapters import SFT
from rlhf.models.batching import Batching
from rlhf.models.card import write_policy
from rlhf.models.policy import PreTrainedModel, context_of, load_policy_and_reference
from rlhf.models.tokens import PreTrainedTokenizerBase, load_tokenizer, pad_id
from rlhf.records import Preference, Prompt
from rlhf.runtime.engine import make_engine
from rlhf.runtime.memory import memory_of
from rlhf.runtime.run import Run
from rlhf.runtime.tracking import home_of
from rlhf.training.dpo import paired_examples, with_reference
from rlhf.training.dpo_rounds import Rounds, shares_of, train_rounds
from rlhf.training.loop import LoopState, Passes
from rlhf.training.rows import say_truncated
from rlhf.training.samples import write_samples
from rlhf.training.watch import gold_judge, make_watch


def main(run: Run) -> None:
    """Asks the reference once for its log-probabilities, learns the pairs round by round, and writes the policy."""
    config, dpo, place = run.config, run.config.dpo, run.read("sft", "model")
    tokenizer = load_tokenizer(place)
    policy, reference = load_policy_and_reference(place, run.device, config.engine, config.lora, run.seed("adapter"), SFT)
    preferences = read_records(run.read("label", "preferences.jsonl"), Preference)
    train, held_out = ([p for p in preferences if p.split == split] for split in ("train", "validation"))
    context = context_of(policy, config.model.max_tokens)
    watch = make_watch(
        config,
        reference,
        tokenizer,
        read_records(run.read("prepare", "prompts.jsonl"), Prompt),
        gold_judge(load_gold(run.find), tokenizer),
        most=dpo.eval_prompts,
        shown=dpo.shown_prompts,
        temperature=1.0,
        seed=run.seed("watch"),
    )
    rounds = Rounds(
        shares=shares_of(train, dpo.rounds),
        label_anew=partial(label_anew, run, policy, tokenizer),
        tokenizer=tokenizer,
        context=context,
        max_dropped_share=dpo.max_dropped_share,
    )
    say_truncated(run, rounds.first.truncated, len(rounds.first.rows), context)
    batching = Batching(pad_id(tokenizer), config.engine.tokens_per_micro_batch)
    memory = memory_of(home_of(run.root) / "cache", place, run.device, config.engine)
    run.say("asks the reference once for each response, or remembers what it said")
    validation = with_reference(reference, paired_examples(held_out, tokenizer, context).rows, batching, memory)

    passes = Passes(dpo.epochs, dpo.prompts_per_step, dpo.eval_every_steps, run.seed("rows"))
    steps = rounds.steps(passes)
    state = LoopState(make_engine(policy, dpo.lr, dpo.warmup_share, steps, config.optimizer, config.engine))
    rows = train_rounds(state, rounds, reference, memory, validation, passes, batching, watch, dpo)
    for row in run.follow(rows, steps, state):
        if watch and (page := write_samples(run.output, state.said, watch.shown, tokenizer, row["step"])):
            run.tracker.log_file(page)
    about = f"Direct preference optimization of SFT, beta {dpo.beta}."
    with state.engine.whole():
        write_policy(
            policy, tokenizer, run.output / "model", "DPO policy", about, max_response_tokens=config.data.max_response_tokens
        )
    run.finish(dict(state.learnt) | run.rows[-1])
    run.log_model(run.output / "model")


def label_anew(
    run: Run, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], number: int
) -> list[Preference]:
    """What the policy answers by now, as the labeler orders it; written down: these labels are made nowhere else."""
    run.say(f"answers {len(prompts)} prompts anew for round {number}")
    gold = require_gold(run.find)
    sampler = make_sampler(run.config, tokenizer, {run.name: policy})
    made = answer_and_label(sampler, prompts, gold, run.config.labeler.temperature, run.seed("round", number))
    write_records(run.output / f"preferences_round_{number}.jsonl", made)
    return made
