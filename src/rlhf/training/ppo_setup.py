"""From settings and models to what PPO runs on."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf import config
from rlhf.errors import UserError
from rlhf.maths.kl import AdaptiveKL, FixedKL
from rlhf.models.policy import context_of
from rlhf.models.reward import critic_from_reward_model, start_from_policy
from rlhf.models.tokens import Example, encode_prompt, prompt_room
from rlhf.records import Prompt
from rlhf.runtime.engine import make_engine
from rlhf.seeds import derive_seed
from rlhf.training.ppo_state import Environment, PPOState, SharedTrunk
from rlhf.training.watch import Judge, Watch, make_watch

NO_PROMPTS = "ppo: there are no {split} prompts: look at prepare's shares and artifacts/prepare/metrics.json"


def make_state(settings: config.Config, policy: PreTrainedModel, reward_model: PreTrainedModel) -> PPOState:
    """Engines for as many optimizer steps as the rollouts will take, and the KL controller."""
    ppo = settings.ppo
    steps_a_rollout = ppo.ppo_epochs * (ppo.responses_per_step // ppo.responses_per_minibatch)
    engines = (settings.optimizer, settings.engine)
    policy_steps = steps_a_rollout * (ppo.stop.steps - ppo.critic_warmup_steps)
    kl = AdaptiveKL(ppo.kl_ctl, ppo.kl_target, ppo.kl_horizon) if ppo.kl_target else FixedKL(ppo.kl_ctl)
    if ppo.critic != "separate":
        model = SharedTrunk(policy) if ppo.critic == "shared" else policy
        return PPOState(make_engine(model, ppo.lr, ppo.warmup_share, policy_steps, *engines), None, kl)
    critic = critic_from_reward_model(reward_model, settings.lora, derive_seed(settings.seed, "ppo", "critic's adapter"))
    if ppo.critic_from == "policy":
        start_from_policy(critic, policy)
    critic_steps = steps_a_rollout * ppo.stop.steps
    return PPOState(
        policy=make_engine(policy, ppo.lr, ppo.warmup_share, policy_steps, *engines),
        critic=make_engine(critic, ppo.critic_lr, ppo.warmup_share, critic_steps, *engines),
        kl=kl,
    )


def make_environment(
    settings: config.Config,
    reference: PreTrainedModel,
    reward_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompts: Sequence[Prompt],
    demonstrations: Sequence[Example],
    judge: Judge | None,
    seed: int,
) -> Environment:
    """Train prompts to roll out on, validation prompts to look at, and the two models that stand still.

    Raises:
        UserError: there are no prompts in one of the splits, or demonstrations are asked for and there are none.
    """
    room = prompt_room(context_of(reference, settings.model.max_tokens), settings.data.max_response_tokens)
    learned = [p for p in prompts if p.split == "train"]
    if not learned:
        raise UserError(NO_PROMPTS.format(split="train"))
    watch = _watch(settings, reference, tokenizer, prompts, judge, seed)
    if settings.ppo.ptx_coef and not demonstrations:
        raise UserError(
            f"ppo.ptx_coef ({settings.ppo.ptx_coef}) needs train demonstrations, and there are none: set it to 0"
        )
    if settings.ppo.reward_from == "gold" and judge is None:
        raise UserError("ppo.reward_from (gold) needs a gold rater, and artifacts/prepare has none")

    def gold(places: Sequence[int], examples: Sequence[Example]) -> list[float]:
        assert judge is not None
        return judge([learned[i] for i in places], examples)

    encoded = [encode_prompt(tokenizer, p.prompt, room) for p in learned]
    return Environment(
        reference=reference.requires_grad_(False),
        reward_model=reward_model.requires_grad_(False),
        prompts=[ids for ids, _ in encoded],
        truncated_prompts=sum(truncated for _, truncated in encoded) + watch.truncated_prompts,
        demonstrations=list(demonstrations),
        decoding=watch.decoding,
        batching=watch.batching,
        watch=watch,
        seed=seed,
        gold=gold if settings.ppo.reward_from == "gold" else None,
    )


def _watch(
    settings: config.Config,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    judge: Judge | None,
    seed: int,
) -> Watch:
    """On the policy as it is trained: its rule to stop and its curve are of the temperature of the rollouts."""
    watch = make_watch(
        settings,
        reference,
        tokenizer,
        prompts,
        judge,
        most=settings.ppo.eval_prompts,
        shown=settings.ppo.shown_prompts,
        temperature=settings.ppo.temperature,
        seed=derive_seed(seed, "validation"),
    )
    if watch is None:
        raise UserError(NO_PROMPTS.format(split="validation"))
    return watch
