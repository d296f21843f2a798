"""One section a stage, in the order of the DAG; PPO has a file of its own."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlhf.config.section import BelowHalf, Count, CountOrNone, OpenShare, Positive, Section, Share, must_divide


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
    prompts: CountOrNone
    max_dropped_share: Share


class Reward(Section):
    layers: Count | None
    epochs: Count
    prompts_per_step: Count
    label_smoothing: BelowHalf
    eval_every_steps: Count
    centre: bool
    scale: bool
    max_dropped_share: Share
    lr: Positive
    warmup_share: Share


class DPO(Section):
    """SPEC section 5; names as there."""

    rounds: Count
    epochs: Count
    prompts_per_step: Count
    loss: Literal["sigmoid", "ipo", "hinge"]
    beta: Positive
    label_smoothing: BelowHalf
    eval_every_steps: Count
    eval_prompts: Count
    shown_prompts: CountOrNone
    max_dropped_share: Share
    lr: Positive
    warmup_share: Share

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.label_smoothing and self.loss != "sigmoid":
            raise ValueError(
                f"dpo.label_smoothing ({self.label_smoothing:g}) must be 0 with dpo.loss ({self.loss}): only the sigmoid is "
                "a likelihood of labels"
            )
        return self


class Evaluate(Section):
    """SPEC section 6."""

    judge: Literal["auto", "gold", "reward_model", "python"]
    scorer: str
    best_of: Count
    best_of_up_to: Count
    gold_best_of: CountOrNone
    gold_best_of_prompts: Count
    temperature: Positive
    bootstrap_samples: Count
    shown_prompts: Count

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.best_of > self.best_of_up_to:
            raise ValueError(
                f"evaluate.best_of ({self.best_of}) must be at most evaluate.best_of_up_to ({self.best_of_up_to}): it "
                "chooses among so many answers"
            )
        if (self.judge == "python") != self.scorer.endswith(".py"):
            raise ValueError(
                f"evaluate.scorer ({self.scorer}) does not go with evaluate.judge ({self.judge}): python needs a file of "
                "yours, NAME.py, and no other judge reads one"
            )
        return self
