"""PPO: what a rollout is, how it is learned from, and when to stop."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlhf.config.section import Count, CountOrNone, NotNegative, OpenShare, Positive, Section, Share, must_divide


class Stop(Section):
    """When PPO ends, whichever comes first; 0 switches a rule off (`steps` cannot be off)."""

    steps: Count
    kl_budget: NotNegative
    plateau_evaluations: CountOrNone


class PPO(Section):
    """SPEC section 4; names as there."""

    stop: Stop
    responses_per_step: Count
    responses_per_prompt: Count
    responses_per_minibatch: Count
    ppo_epochs: Count
    epoch_kl_limit: NotNegative
    kl_ctl: NotNegative
    kl_in: Literal["reward", "loss"]
    kl_target: NotNegative
    kl_horizon: Count
    clip_range: OpenShare | None
    value_clip: NotNegative
    advantage: Literal["gae", "rloo", "grpo"]
    weight: Literal["advantage", "action_value"]
    gamma: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    lam: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    whiten_advantages: bool
    critic: Literal["separate", "shared", "none"]
    critic_from: Literal["reward_model", "policy"]
    critic_target: Literal["gae", "td"]
    critic_warmup_steps: CountOrNone
    w_c: NotNegative | None
    ptx_coef: NotNegative
    reward_from: Literal["reward_model", "gold"]
    score_centre: bool
    score_scale: bool
    score_clip: NotNegative
    missing_end_score: Annotated[float, Field(allow_inf_nan=False)]
    temperature: Positive
    eval_every_steps: Count
    eval_prompts: Count
    shown_prompts: CountOrNone
    keep_every: CountOrNone
    keep_best_by: Literal["validation_score", "validation_gold_score", "validation_ended"] | None
    lr: Positive
    critic_lr: Positive
    warmup_share: Share

    @model_validator(mode="after")
    def _check_rollouts(self) -> Self:
        must_divide(
            "ppo.responses_per_step", self.responses_per_step, "ppo.responses_per_minibatch", self.responses_per_minibatch
        )
        must_divide("ppo.responses_per_step", self.responses_per_step, "ppo.responses_per_prompt", self.responses_per_prompt)
        if self.critic_warmup_steps >= self.stop.steps:
            raise ValueError(
                f"ppo.critic_warmup_steps ({self.critic_warmup_steps}) must be below ppo.stop.steps ({self.stop.steps}), "
                "or the policy never learns"
            )
        return self

    @model_validator(mode="after")
    def _check_kl(self) -> Self:
        if self.kl_target and not self.kl_ctl:
            raise ValueError(
                f"ppo.kl_ctl (0) must be above 0 with ppo.kl_target ({self.kl_target:g}): it adapts by a factor"
            )
        if self.kl_target and self.responses_per_step >= 5 * self.kl_horizon:
            raise ValueError(
                f"ppo.responses_per_step ({self.responses_per_step}) must be below 5 x ppo.kl_horizon ({self.kl_horizon}), "
                "or kl_ctl can turn negative (SPEC eq. 7)"
            )
        return self

    @model_validator(mode="after")
    def _check_advantage(self) -> Self:
        if (self.advantage == "gae") != (self.critic != "none"):
            raise ValueError(
                f"ppo.critic ({self.critic}) does not go with ppo.advantage ({self.advantage}): gae needs a critic, rloo "
                "and grpo have none (`ppo=rloo` and `ppo=grpo` set both)"
            )
        if self.advantage != "gae" and self.responses_per_prompt < 2:
            raise ValueError(
                f"ppo.responses_per_prompt ({self.responses_per_prompt}) must be at least 2 with ppo.advantage "
                f"({self.advantage}): the responses to a prompt are each other's baseline"
            )
        if self.advantage != "gae" and self.gamma != 1:
            raise ValueError(
                f"ppo.gamma ({self.gamma:g}) must be 1 with ppo.advantage ({self.advantage}): whole responses are "
                "compared, and nothing is discounted"
            )
        if self.advantage != "gae" and self.weight == "action_value":
            raise ValueError(f"ppo.weight (action_value) needs a critic, and ppo.advantage ({self.advantage}) has none")
        return self

    @model_validator(mode="after")
    def _check_critic(self) -> Self:
        if self.critic == "separate" and self.w_c is not None:
            raise ValueError(
                f"ppo.w_c ({self.w_c}) has no effect with ppo.critic=separate: the critic's own adaptive optimizer cancels "
                "it. Set ppo.critic_lr instead, or ppo.critic=shared"
            )
        if self.critic == "none" and self.w_c is not None:
            raise ValueError(f"ppo.w_c ({self.w_c}) must be null with ppo.critic=none: there is no loss it weighs")
        if self.critic == "none" and self.critic_warmup_steps:
            raise ValueError(
                f"ppo.critic_warmup_steps ({self.critic_warmup_steps}) must be 0 with ppo.critic=none: no critic learns"
            )
        if self.critic == "shared" and not self.w_c:
            shown = "null" if self.w_c is None else 0
            raise ValueError(f"ppo.w_c ({shown}) must be above 0 with ppo.critic=shared: it weighs L_critic in L_total")
        if self.critic == "shared" and self.critic_warmup_steps:
            raise ValueError(
                f"ppo.critic_warmup_steps ({self.critic_warmup_steps}) must be 0 with ppo.critic=shared: "
                "policy and critic learn in one step (`ppo=shared` sets both)"
            )
        return self

    @model_validator(mode="after")
    def _check_scores(self) -> Self:
        if self.score_scale and not self.score_centre:
            raise ValueError(
                "ppo.score_scale (true) needs ppo.score_centre (true): what scores have in common would be multiplied "
                "as well, the more the less they differ"
            )
        return self

    @model_validator(mode="after")
    def _check_stop(self) -> Self:
        learning = self.stop.steps - self.critic_warmup_steps
        if self.stop.plateau_evaluations and self.stop.plateau_evaluations * self.eval_every_steps > learning:
            raise ValueError(
                f"ppo.stop.plateau_evaluations ({self.stop.plateau_evaluations}) x ppo.eval_every_steps "
                f"({self.eval_every_steps}) must be at most ppo.stop.steps ({self.stop.steps}) - ppo.critic_warmup_steps "
                f"({self.critic_warmup_steps}), or it never stops anything"
            )
        if self.keep_every % self.eval_every_steps:
            raise ValueError(
                f"ppo.keep_every ({self.keep_every}) must be a multiple of ppo.eval_every_steps "
                f"({self.eval_every_steps}): what is kept is evaluated"
            )
        return self
