"""Every setting the pipeline has: one frozen section a noun, with types and bounds; `conf/` gives the values.

A section refuses what is misspelt, out of range or in contradiction, before any model is loaded. pydantic does the
checking; `rlhf.runtime.settings` turns its complaints into messages that name the key, both values and what to do.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
OpenShare = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class Section(BaseModel):
    """A frozen group of settings; unknown keys and silent conversions are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


def must_divide(whole_name: str, whole: int, part_name: str, part: int) -> None:
    if whole % part:
        raise ValueError(f"{whole_name} ({whole}) must be a multiple of {part_name} ({part})")


class Columns(Section):
    """The user's names for ours, where a file has other ones; docs/data.md says what each is."""

    prompt: str | None
    input: str | None
    completion: str | None
    messages: str | None
    chosen: str | None
    rejected: str | None

    def named(self) -> dict[str, str]:
        """{our name: the user's} of those that are set."""
        return {ours: theirs for ours, theirs in self.model_dump().items() if theirs is not None}


class Data(Section):
    """Where raw data come from, and how long a response may be."""

    name: str
    source: Literal["world", "files", "hh_rlhf"]
    path: str
    columns: Columns
    max_response_tokens: Count
    documents: CountOrNone
    demonstrations: CountOrNone
    prompts: CountOrNone


class Model(Section):
    """The model to start from: trained here (`tiny`), a local directory, or a hub id at a pinned revision."""

    name: str
    source: Literal["tiny", "local", "hub"]
    path: str
    id: str | None
    revision: str | None
    tokenizer: Literal["words", "bpe", "own"]
    vocabulary: CountOrNone
    hidden_size: Count
    layers: Count
    heads: Count
    intermediate_size: Count
    max_tokens: CountOrNone
    initializer_range: Positive

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source == "tiny":
            must_divide("model.hidden_size", self.hidden_size, "model.heads", self.heads)
            if self.max_tokens == 0:
                raise ValueError("model.max_tokens (0) must be at least 1: a model trained here has no context of its own")
        if self.source == "hub" and not (self.id and self.revision):
            raise ValueError("model.id and model.revision are missing: a hub model is reproducible at a pinned commit only")
        return self


class Labeler(Section):
    """Who orders the responses: `gold` simulates a person, `dataset` keeps the preferences that came with the data."""

    name: Literal["gold", "dataset"]
    temperature: Positive


class Engine(Section):
    """What carries a training step: plain torch or DeepSpeed, in which precision, on how many threads."""

    name: Literal["torch", "deepspeed"]
    dtype: Literal["float32", "bfloat16"]
    threads: Count
    tokens_per_micro_batch: Count
    zero_stage: Annotated[int, Field(ge=0, le=3)]


class Optimizer(Section):
    """AdamW and its schedule, the same in every stage; each stage has its own `lr` and `warmup_share`."""

    final_lr_share: Share
    weight_decay: NotNegative
    max_grad_norm: Positive
    beta1: OpenShare
    beta2: OpenShare
    eps: Positive


class Prepare(Section):
    validation_share: OpenShare
    test_share: OpenShare
    max_dropped_share: Share

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"prepare.validation_share ({self.validation_share}) + prepare.test_share ({self.test_share}) "
                "must be below 1: no prompts would be left to train on"
            )
        return self


class Base(Section):
    held_out_share: OpenShare
    epochs: Count
    documents_per_step: Count
    eval_every_steps: Count
    lr: Positive
    warmup_share: Share


class SFT(Section):
    epochs: Count
    demonstrations_per_step: Count
    eval_every_steps: Count
    max_dropped_share: Share
    lr: Positive
    warmup_share: Share


class PromptsPerSplit(Section):
    train: CountOrNone
    validation: CountOrNone
    test: CountOrNone


class Sample(Section):
    models: Annotated[list[Literal["base", "sft"]], Field(min_length=1)]
    responses_per_prompt: Annotated[int, Field(ge=1)]
    prompts: PromptsPerSplit
    temperature: Positive

    @model_validator(mode="after")
    def _check(self) -> Self:
        must_divide(
            "sample.responses_per_prompt", self.responses_per_prompt, "the number of sample.models", len(self.models)
        )
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"sample.models ({', '.join(self.models)}) must name each model once")
        return self


class Label(Section):
    max_dropped_share: Share


class Reward(Section):
    epochs: Count
    prompts_per_step: Count
    eval_every_steps: Count
    centre: bool
    scale: bool
    max_dropped_share: Share
    lr: Positive
    warmup_share: Share


class Stop(Section):
    """When PPO ends, whichever comes first; 0 switches a rule off (`steps` cannot be off)."""

    steps: Count
    kl_budget: NotNegative
    plateau_evaluations: CountOrNone


class PPO(Section):
    """SPEC section 4; names as there."""

    stop: Stop
    responses_per_step: Count
    responses_per_minibatch: Count
    ppo_epochs: Count
    kl_ctl: NotNegative
    kl_target: NotNegative
    kl_horizon: Count
    clip_range: OpenShare
    value_clip: NotNegative
    gamma: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    lam: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    whiten_advantages: bool
    critic: Literal["separate", "shared"]
    critic_target: Literal["gae", "td"]
    critic_warmup_steps: CountOrNone
    w_c: NotNegative | None
    ptx_coef: NotNegative
    missing_end_score: Annotated[float, Field(allow_inf_nan=False)]
    temperature: Positive
    eval_every_steps: Count
    eval_prompts: Count
    keep_every: CountOrNone
    lr: Positive
    critic_lr: Positive
    warmup_share: Share

    @model_validator(mode="after")
    def _check(self) -> Self:
        must_divide(
            "ppo.responses_per_step", self.responses_per_step, "ppo.responses_per_minibatch", self.responses_per_minibatch
        )
        if self.critic_warmup_steps >= self.stop.steps:
            raise ValueError(
                f"ppo.critic_warmup_steps ({self.critic_warmup_steps}) must be below ppo.stop.steps ({self.stop.steps}), "
                "or the policy never learns"
            )
        if self.kl_target and not self.kl_ctl:
            raise ValueError(
                f"ppo.kl_ctl (0) must be above 0 with ppo.kl_target ({self.kl_target:g}): it adapts by a factor"
            )
        if self.kl_target and self.responses_per_step >= 5 * self.kl_horizon:
            raise ValueError(
                f"ppo.responses_per_step ({self.responses_per_step}) must be below 5 x ppo.kl_horizon ({self.kl_horizon}), "
                "or kl_ctl can turn negative (SPEC eq. 7)"
            )
        if self.critic == "separate" and self.w_c is not None:
            raise ValueError(
                f"ppo.w_c ({self.w_c}) has no effect with ppo.critic=separate: the critic's own adaptive optimizer cancels "
                "it. Set ppo.critic_lr instead, or ppo.critic=shared"
            )
        if self.critic == "shared" and self.w_c is None:
            raise ValueError("ppo.w_c (null) must be a number with ppo.critic=shared: it weighs L_critic in L_total")
        if self.critic == "shared" and self.critic_warmup_steps:
            raise ValueError(
                f"ppo.critic_warmup_steps ({self.critic_warmup_steps}) must be 0 with ppo.critic=shared: "
                "policy and critic learn in one step (`ppo=shared` sets both)"
            )
        if self.stop.plateau_evaluations and self.stop.plateau_evaluations * self.eval_every_steps > self.stop.steps:
            raise ValueError(
                f"ppo.stop.plateau_evaluations ({self.stop.plateau_evaluations}) x ppo.eval_every_steps "
                f"({self.eval_every_steps}) must be at most ppo.stop.steps ({self.stop.steps}), or it never stops anything"
            )
        if self.keep_every % self.eval_every_steps:
            raise ValueError(
                f"ppo.keep_every ({self.keep_every}) must be a multiple of ppo.eval_every_steps "
                f"({self.eval_every_steps}): what is kept is evaluated"
            )
        return self


class DPO(Section):
    """SPEC section 5; names as there."""

    epochs: Count
    prompts_per_step: Count
    beta: Positive
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5, allow_inf_nan=False)]
    eval_every_steps: Count
    eval_prompts: Count
    max_dropped_share: Share
    lr: Positive
    warmup_share: Share


class Evaluate(Section):
    """SPEC section 6."""

    best_of: Count
    gold_best_of: CountOrNone
    gold_best_of_prompts: Count
    temperature: Positive
    bootstrap_samples: Count
    shown_prompts: Count


class Tracking(Section):
    """What MLflow gets beyond parameters, metrics and small files. No stage's result depends on it."""

    experiment: str
    copy_models: bool


class Config(Section):
    """The whole of conf/, composed."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    data: Data
    model: Model
    labeler: Labeler
    engine: Engine
    optimizer: Optimizer
    tracking: Tracking
    prepare: Prepare
    base: Base
    sft: SFT
    sample: Sample
    label: Label
    reward: Reward
    ppo: PPO
    dpo: DPO
    evaluate: Evaluate

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.model.source == "tiny" and self.data.max_response_tokens >= self.model.max_tokens:
            raise ValueError(
                f"data.max_response_tokens ({self.data.max_response_tokens}) must be below model.max_tokens "
                f"({self.model.max_tokens}): no room is left for a prompt"
            )
        if self.reward.centre and not ("sft" in self.sample.models and self.sample.prompts.train):
            raise ValueError(
                "reward.centre (true) needs SFT responses to train prompts: sample.models must name sft and "
                f"sample.prompts.train ({self.sample.prompts.train}) be above 0; or set reward.centre=false"
            )
        if self.labeler.name == "gold" and self.sample.responses_per_prompt < 2:
            raise ValueError(
                "sample.responses_per_prompt (1) must be at least 2 with labeler.name (gold): it ranks responses"
            )
        if self.engine.name == "torch" and self.engine.zero_stage:
            raise ValueError(
                f"engine.zero_stage ({self.engine.zero_stage}) must be 0 with engine.name (torch): choose engine=deepspeed"
            )
        if self.labeler.name == "gold" and self.data.source != "world":
            raise ValueError(
                f"labeler.name (gold) needs the world's rater, but data.source is {self.data.source}: "
                "choose labeler=dataset, or data=world"
            )
        if self.labeler.name == "dataset" and self.data.source == "world":
            raise ValueError(
                "labeler.name (dataset) needs preferences in the data, and data.source (world) has none: use labeler=gold"
            )
        return self
