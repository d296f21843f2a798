"""What every policy is asked, and who judges what it answers (SPEC section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.config import Config
from rlhf.data.files import read_records
from rlhf.data.gold import load_gold
from rlhf.data.world import World
from rlhf.errors import UserError
from rlhf.evaluation.raters import Rater, rater_of
from rlhf.models.batching import Batching
from rlhf.models.generation import Decoding, decoding_of
from rlhf.models.policy import PreTrainedModel, context_of, load_policy
from rlhf.models.reward import load_reward_model
from rlhf.models.tokens import (
    Example,
    PreTrainedTokenizerBase,
    encode_prompt,
    encode_response,
    fit,
    load_tokenizer,
    pad_id,
    prompt_room,
)
from rlhf.records import Demonstration, Messages, Prompt
from rlhf.runtime.run import Run


@dataclass(frozen=True, slots=True)
class Exam:
    """What every policy is asked, and how: the same prompts, limits and random numbers for all."""

    prompts: list[Messages]
    prompt_ids: list[list[int]]
    truncated_prompts: int
    demonstrations: list[Example]  # held out, with their responses
    references: list[str | None]  # a held-out demonstration of each prompt, where there is one
    families: list[str]  # of each prompt in the world; without one all prompts are of one kind
    tokenizer: PreTrainedTokenizerBase
    decoding: Decoding
    batching: Batching
    temperature: float


@dataclass(frozen=True, slots=True)
class Judges:
    """Who says what an answer is worth. Without a rater the reward model judges alone."""

    reference: PreTrainedModel
    reward_model: PreTrainedModel
    rater: Rater | None


def open_exam(run: Run) -> tuple[Exam, Judges]:
    """The test prompts of this repository, and its judges: SFT as the reference, the reward model, a rater."""
    config = run.config
    tokenizer = load_tokenizer(run.read("sft", "model"))
    gold = load_gold(run.find)
    rater = rater_of(config.evaluate, gold, run.root)
    judges = Judges(
        reference=load_policy(run.read("sft", "model"), run.device, config.engine),
        reward_model=load_reward_model(run.read("reward", "model"), run.device, config.engine),
        rater=rater,
    )
    exam = set_exam(
        [p for p in read_records(run.read("prepare", "prompts.jsonl"), Prompt) if p.split == "test"],
        [d for d in read_records(run.read("prepare", "demonstrations.jsonl"), Demonstration) if d.split == "test"],
        tokenizer,
        context_of(judges.reference, config.model.max_tokens),
        config,
        gold if isinstance(gold, World) else None,
    )
    return exam, judges


def set_exam(
    prompts: Sequence[Prompt],
    demonstrations: Sequence[Demonstration],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    config: Config,
    world: World | None = None,
) -> Exam:
    """Encodes held-out prompts and demonstrations for a context of `max_tokens`; what does not fit there is left out.

    Raises:
        UserError: there is nothing to ask, or no room to ask it.
    """
    if not prompts:
        raise UserError("there are 0 test prompts: raise prepare.test_share, or bring more prompts")
    room = prompt_room(max_tokens, config.data.max_response_tokens)
    encoded = [encode_prompt(tokenizer, asked.prompt, room) for asked in prompts]
    fitted = [fit(tokenizer, d.prompt, [encode_response(tokenizer, d.completion)], max_tokens) for d in demonstrations]
    first = {d.prompt: d.completion for d in reversed(demonstrations)}
    return Exam(
        prompts=[asked.prompt for asked in prompts],
        prompt_ids=[ids for ids, _ in encoded],
        truncated_prompts=sum(truncated for _, truncated in encoded),
        demonstrations=[example for fits in fitted if fits is not None for example in fits.examples],
        references=[first.get(asked.prompt) for asked in prompts],
        families=[world.family(asked.prompt[-1].content) if world else "" for asked in prompts],
        tokenizer=tokenizer,
        decoding=decoding_of(tokenizer, config),
        batching=Batching(pad_id(tokenizer), config.engine.tokens_per_micro_batch),
        temperature=config.evaluate.temperature,
    )
