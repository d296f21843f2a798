"""What carries a training step and what follows it: precision, threads, optimizer, tracking."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlhf.config.section import Count, NotNegative, OpenShare, Positive, Section, Share


class Engine(Section):
    """What carries a training step: plain torch or DeepSpeed, in which precision, on how many threads."""

    name: Literal["torch", "deepspeed"]
    dtype: Literal["float32", "bfloat16"]
    threads: Count
    tokens_per_micro_batch: Count
    responses_at_once: Count
    zero_stage: Annotated[int, Field(ge=0, le=3)]


class Optimizer(Section):
    """AdamW and its schedule, the same in every stage; each stage has its own `lr` and `warmup_share`."""

    schedule: Literal["linear", "cosine", "constant"]
    final_lr_share: Share
    weight_decay: NotNegative
    max_grad_norm: Positive
    beta1: OpenShare
    beta2: OpenShare
    eps: Positive


class Tracking(Section):
    """What MLflow gets beyond parameters, metrics and small files. No stage's result depends on it."""

    experiment: str
    copy_models: bool


class Sweep(Section):
    """What a sweep (`-m`) is told beyond the values to try. No job's result depends on it."""

    resume: str | None
