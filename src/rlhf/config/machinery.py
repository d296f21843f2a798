"""What carries a step and what follows it: precision, threads, optimizer, the server of a judge, tracking."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlhf.config.section import Count, CountOrNone, NotNegative, OpenShare, Positive, Section, Share


class Engine(Section):
    """What carries a training step: plain torch in one process, or DeepSpeed's ZeRO over several; and how they compute."""

    name: Literal["single", "zero0", "zero1", "zero2", "zero3", "zero3_offload"]
    processes: Count
    dtype: Literal["float32", "bfloat16"]
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"]
    gradient_checkpointing: bool
    threads: Count
    tokens_per_micro_batch: Count
    responses_at_once: Count

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == "single" and self.processes > 1:
            raise ValueError(
                f"engine.processes ({self.processes}) must be 1 with engine.name (single): choose engine=zero1, zero2, "
                "zero3 or zero3_offload"
            )
        if self.name == "zero0" and self.dtype == "bfloat16":
            raise ValueError(
                "engine.dtype (bfloat16) does not go with engine.name (zero0), where DeepSpeed makes a step of Adam before "
                "the first one: choose engine=zero1"
            )
        return self

    @property
    def zero_stage(self) -> int:
        """Of what every process keeps a part only. 0: nothing; 1: optimizer; 2: gradients too; 3: weights too."""
        return int(self.name[4]) if self.name.startswith("zero") else 0

    @property
    def offload(self) -> bool:
        """Whether weights and optimizer wait in the memory of the CPU."""
        return self.name.endswith("_offload")


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021) in place of all weights, in every stage that trains; without dropout, for the
    policy that samples and the one that learns are one function."""

    rank: CountOrNone
    alpha: Positive
    targets: list[str]


class Optimizer(Section):
    """AdamW and its schedule, the same in every stage; each stage has its own `lr` and `warmup_share`."""

    bits: Literal[8, 32]
    schedule: Literal["linear", "cosine", "constant"]
    final_lr_share: Share
    weight_decay: NotNegative
    max_grad_norm: Positive
    beta1: OpenShare
    beta2: OpenShare
    eps: Positive


class Endpoint(Section):
    """How labeler=judge asks a server that speaks OpenAI's chat completions. Where the server is, and the key to it, the
    environment says (`runtime/endpoint/address.py`)."""

    model: str | None
    temperature: NotNegative | None
    max_answer_tokens: Count
    limit_name: Literal["max_tokens", "max_completion_tokens"]
    concurrency: Annotated[int, Field(ge=1, le=256)]
    requests_per_minute: CountOrNone
    most_requests: CountOrNone
    most_tokens: CountOrNone
    retries: CountOrNone
    timeout_seconds: Positive


class Checkpoint(Section):
    """How often a training loop saves its whole state. No stage's result depends on it."""

    every_minutes: NotNegative


class Tracking(Section):
    """What MLflow gets beyond parameters, metrics and small files. No stage's result depends on it."""

    experiment: str
    copy_models: bool


class Sweep(Section):
    """What a sweep (`-m`) is told beyond the values to try. No job's result depends on it."""

    resume: str | None
