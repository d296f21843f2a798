"""Which models each stage holds at once, and what its heaviest passes take: as the stages load and use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rlhf import config
from rlhf.models.sizes import Sizes
from rlhf.runtime.plan.models import Models
from rlhf.runtime.plan.rules import (
    Pass,
    State,
    adapters,
    grading_pass,
    learn_pass,
    learning,
    read_pass,
    sampling_pass,
    standing,
    trunk,
    whole,
)

PAIR = 2


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage holds all the while, by model, and what each of its heaviest passes takes beside: bytes a process."""

    name: str
    held: dict[str, State]
    passes: tuple[Pass, ...]

    @property
    def kept(self) -> float:
        return sum(state.total for state in self.held.values())

    @property
    def total(self) -> float:
        """At its peak."""
        return self.kept + max((one.total for one in self.passes), default=0.0)

    @property
    def waiting(self) -> float:
        """In the memory of the CPU."""
        return sum(state.waiting for state in self.held.values())


def stages_of(settings: config.Config, models: Models) -> list[Stage]:
    """All stages that hold a model, in the order of the pipeline."""
    makers: list[Callable[[config.Config, Models], Stage]] = [_base, _sft, _sample, _reward, _ppo, _dpo, _evaluate]
    if models.labeler:
        makers.insert(makers.index(_reward), _label)
    return [make(settings, models) for make in makers]


def _base(settings: config.Config, models: Models) -> Stage:
    """A tiny model is trained, all of it; another is read and written as it is computed with."""
    policy = models.policy
    if settings.model.source != "tiny":
        return Stage("base", {"policy": standing(policy.parameters, settings.engine)}, ())
    learner = {"policy": learning(policy.parameters, settings.engine, settings.optimizer)}
    return Stage("base", learner, (_step("step", policy, settings, head=True),))


def _sft(settings: config.Config, models: Models) -> Stage:
    passes = (_step("step", models.policy, settings, head=True), *_evaluation(models.policy, settings, head=True))
    return Stage("sft", _learners(settings, {"policy": models.policy}), passes)


def _sample(settings: config.Config, models: Models) -> Stage:
    """All models that answer are loaded at once."""
    held = {str(name): standing(models.policy.parameters, settings.engine) for name in settings.sample.models}
    return Stage("sample", held, (_sampling(models.policy, settings, settings.engine.responses_at_once),))


def _label(settings: config.Config, models: Models) -> Stage:
    """A judge reads a prompt with two responses and says one letter, a reward model a prompt with one. As long as the policy
    takes them, that is: in the tokens of its own tokenizer. One that reads both ways is loaded in float32 as it comes."""
    labeler, policy = models.labeler, models.policy
    assert labeler
    as_it_comes = {} if labeler.causal else {"dtype": "float32", "attention": "auto"}
    engine = settings.engine.model_copy(update=as_it_comes)
    judge = settings.labeler.name == "judge"
    asked = policy.context + (settings.data.max_response_tokens + labeler.template if judge else 0)
    row = min(asked, labeler.sizes.context)
    tokens = max(engine.tokens_per_micro_batch, row)
    name, verdicts = ("verdicts", tokens // row) if judge else ("scores", 0)
    one = grading_pass(name, labeler.sizes, tokens, row, engine, verdicts=verdicts)
    return Stage("label", {"labeler": standing(labeler.sizes.parameters, engine)}, (one,))


def _reward(settings: config.Config, models: Models) -> Stage:
    """All responses to a prompt are in one micro-batch."""
    step = _step("step", models.reward_model, settings, rows=settings.sample.responses_per_prompt, head=False)
    passes = (step, *_evaluation(models.reward_model, settings, head=False))
    return Stage("reward", _learners(settings, {"reward model": models.reward_model}), passes)


def _ppo(settings: config.Config, models: Models) -> Stage:
    """A shared critic is a head on the policy."""
    ppo = settings.ppo
    learners = {"policy": models.policy} | ({"critic": models.critic} if models.critic else {})
    still = {"reference": models.policy, "reward model": models.reward_model}
    passes = [
        _sampling(models.policy, settings, max(ppo.responses_per_step, ppo.eval_prompts), list(learners.values())),
        _step("policy step", models.policy, settings, head=True),
    ]
    if models.critic:
        passes.append(_step("critic step", models.critic, settings, head=False))
    return Stage("ppo", _learners(settings, learners, still), tuple(passes))


def _dpo(settings: config.Config, models: Models) -> Stage:
    """The two responses of a pair are in one micro-batch."""
    asked = settings.engine.responses_at_once if settings.dpo.rounds > 1 else settings.dpo.eval_prompts
    passes = (
        _sampling(models.policy, settings, asked, [models.policy]),
        _step("step", models.policy, settings, rows=PAIR, head=True),
    )
    return Stage("dpo", _learners(settings, {"policy": models.policy}, {"reference": models.policy}), passes)


def _evaluate(settings: config.Config, models: Models) -> Stage:
    """One policy answers after the other; the next is loaded before the last is let go."""
    policy, engine = models.policy, settings.engine
    one = standing(policy.parameters, engine)
    held = {"reference": one, "reward model": standing(models.reward_model.parameters, engine), "policy": one}
    passes = (
        Pass("next policy", weights=one.weights),
        _sampling(policy, settings, engine.responses_at_once),
        read_pass("reading", policy, _tokens(settings, policy, 1), engine),
    )
    return Stage("evaluate", held, passes)


def _tokens(settings: config.Config, sizes: Sizes, rows: int) -> int:
    """Of a micro-batch at most: rows that stay together are one, however long."""
    return max(settings.engine.tokens_per_micro_batch, rows * sizes.context)


def _step(name: str, sizes: Sizes, settings: config.Config, *, head: bool, rows: int = 1) -> Pass:
    return learn_pass(name, sizes, _tokens(settings, sizes, rows), settings.engine, head=head)


def _sampling(sizes: Sizes, settings: config.Config, asked: int, learners: Sequence[Sizes] = ()) -> Pass:
    """learners: the models that are put together for it; with adapters they are one trunk."""
    engine = settings.engine
    rows = min(asked, engine.responses_at_once)
    apart = [_largest(learners)] if settings.lora.rank and learners else learners
    return sampling_pass("sampling", sizes, rows, settings.data.max_response_tokens, engine, whole(apart, engine))


def _evaluation(sizes: Sizes, settings: config.Config, *, head: bool) -> list[Pass]:
    """On validation rows; only with a model in parts it takes more than a step does."""
    if settings.engine.zero_stage < 3:
        return []
    read = read_pass("evaluation", sizes, _tokens(settings, sizes, 1), settings.engine)
    return [replace(read, weights=whole([sizes], settings.engine), logits=read.logits if head else 0.0)]


def _learners(
    settings: config.Config, learners: dict[str, Sizes], still: dict[str, Sizes] | None = None
) -> dict[str, State]:
    """What models keep. With adapters all of them are one trunk that stands still, each with adapters and a head."""
    engine, lora, stands = settings.engine, settings.lora, still or {}
    if not lora.rank:
        held = {name: learning(sizes.parameters, engine, settings.optimizer) for name, sizes in learners.items()}
        return held | {name: standing(sizes.parameters, engine) for name, sizes in stands.items()}
    held = {"trunk of all": trunk(_largest([*learners.values(), *stands.values()]).parameters, engine)}
    held |= {name: learning(_added(sizes, lora), engine, settings.optimizer) for name, sizes in learners.items()}
    return held | {n: standing(_added(s, lora), engine) for n, s in stands.items() if n != "reference"}


def _largest(models: Sequence[Sizes]) -> Sizes:
    return max(models, key=lambda sizes: sizes.parameters)


def _added(sizes: Sizes, lora: config.Lora) -> int:
    """Adapters, and a head of one number, which is next to nothing where there is none."""
    return adapters(sizes, lora) + sizes.hidden
