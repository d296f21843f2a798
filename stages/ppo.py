"""Proximal policy optimization against the reward model (SPEC section 4)."""

from __future__ import annotations

import _checkout  # noqa: F401

from rlhf.evaluation.swept import POLICIES
from rlhf.runtime.stage import stage

if __name__ == "__main__":
    stage(__file__, POLICIES)  # leaves

from functools import partial

from rlhf.data.files import read_records
from rlhf.data.gold import load_gold
from rlhf.models.adapters import SFT
from rlhf.models.card import write_policy
from rlhf.models.policy import context_of, load_policy_and_reference
from rlhf.models.reward import load_reward_model_beside
from rlhf.models.tokens import load_tokenizer, same_tokens
from rlhf.records import Demonstration, Prompt
from rlhf.runtime.run import Run
from rlhf.training.ppo import train_ppo
from rlhf.training.ppo_metrics import explain_negative_kl
from rlhf.training.ppo_setup import make_environment, make_state
from rlhf.training.rows import say_truncated
from rlhf.training.samples import write_samples
from rlhf.training.sft import demonstration_examples
from rlhf.training.watch import gold_judge


def main(run: Run) -> None:
    """Policy and critic learn from rollouts until a stop rule holds; writes the policy, and snapshots on the way."""
    config, ppo = run.config, run.config.ppo
    tokenizer = load_tokenizer(run.read("sft", "model"))
    same_tokens(tokenizer, load_tokenizer(run.read("reward", "model")), "artifacts/sft/model", "artifacts/reward/model")
    policy, reference = load_policy_and_reference(
        run.read("sft", "model"), run.device, config.engine, config.lora, run.seed("adapter"), SFT
    )
    reward_model = load_reward_model_beside(reference, run.read("reward", "model"), run.device, config.engine, config.lora)
    demonstrations = read_records(run.read("prepare", "demonstrations.jsonl"), Demonstration) if ppo.ptx_coef else []
    learned = [d for d in demonstrations if d.split == "train"]
    context = context_of(policy, config.model.max_tokens)
    environment = make_environment(
        config,
        reference,
        reward_model,
        tokenizer,
        prompts=read_records(run.read("prepare", "prompts.jsonl"), Prompt),
        demonstrations=demonstration_examples(learned, tokenizer, context).examples,
        judge=gold_judge(load_gold(run.find), tokenizer),
        seed=run.seed("rollouts"),
    )
    asked = len(environment.prompts) + len(environment.watch.prompts)
    say_truncated(run, environment.truncated_prompts, asked, context)
    state = make_state(config, policy, reward_model)
    limit = config.data.max_response_tokens
    write = partial(write_policy, policy, tokenizer, max_response_tokens=limit, temperature=ppo.temperature)
    for row in run.follow(train_ppo(state, environment, ppo), ppo.stop.steps, state):
        if why := explain_negative_kl(state, run.rows):
            run.say(why)
        if page := write_samples(run.output, state.said, environment.watch.shown, tokenizer, row["step"]):
            run.tracker.log_file(page)
        if ppo.keep_every and row["step"] and row["step"] % ppo.keep_every == 0:
            place = run.output / "snapshots" / f"step_{state.step:04d}"
            with state.policy.whole():
                write(place, "PPO policy in training", f"As it was after {state.step} of {ppo.stop.steps} rollouts.")
            run.log_model(place)
    kept = state.kept.step if state.kept else state.step
    of_kept = next(row for row in run.rows if row["step"] == kept)
    about = f"Proximal policy optimization of the SFT policy, kl_ctl {ppo.kl_ctl}, {kept} rollouts."
    with state.policy.whole():
        write(run.output / "model", "PPO policy", about)
    ended = {"last_step": state.step, "stopped_by": state.stopped_by}
    run.finish(of_kept | ended | {"truncated_prompts": environment.truncated_prompts})
    run.log_model(run.output / "model", of_kept)
