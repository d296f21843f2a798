"""Every setting the pipeline has: one frozen section a noun, with types and bounds; `conf/` gives the values.

A section refuses what is misspelt, out of range or in contradiction, before any model is loaded. pydantic does the
checking; `rlhf.runtime.settings` turns its complaints into messages that name the key, both values and what to do.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from rlhf.config.machinery import Checkpoint, Endpoint, Engine, Lora, Optimizer, Sweep, Tracking
from rlhf.config.ppo import PPO, Stop
from rlhf.config.section import Section
from rlhf.config.sources import Columns, Data, Labeler, Model, Stories, TinyModel
from rlhf.config.stages import DPO, SFT, Base, Evaluate, Label, Prepare, PromptsPerSplit, Reward, Sample

__all__ = [
    "DPO",
    "PPO",
    "SFT",
    "Base",
    "Checkpoint",
    "Columns",
    "Config",
    "Data",
    "Endpoint",
    "Engine",
    "Evaluate",
    "Label",
    "Labeler",
    "Lora",
    "Model",
    "Optimizer",
    "Prepare",
    "PromptsPerSplit",
    "Reward",
    "Sample",
    "Section",
    "Stop",
    "Stories",
    "Sweep",
    "TinyModel",
    "Tracking",
]


class Config(Section):
    """The whole of conf/, composed."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    data: Data
    model: Model
    labeler: Labeler
    endpoint: Endpoint
    engine: Engine
    lora: Lora
    optimizer: Optimizer
    checkpoint: Checkpoint
    tracking: Tracking
    sweep: Sweep
    prepare: Prepare
    base: Base
    sft: SFT
    sample: Sample
    label: Label
    reward: Reward
    ppo: PPO
    dpo: DPO
    evaluate: Evaluate

    @property
    def reaches_hub(self) -> bool:
        """Whether the model or the data come from the Hugging Face hub."""
        return (self.model.source == "hub" and not self.model.is_folder) or self.data.revision is not None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if 0 < self.model.max_tokens <= self.data.max_response_tokens:
            raise ValueError(
                f"data.max_response_tokens ({self.data.max_response_tokens}) must be below model.max_tokens "
                f"({self.model.max_tokens}): no room is left for a prompt"
            )
        if self.reward.centre and not ("sft" in self.sample.models and self.sample.prompts.train):
            raise ValueError(
                "reward.centre (true) needs SFT responses to train prompts: sample.models must name sft and "
                f"sample.prompts.train ({self.sample.prompts.train}) be above 0; or set reward.centre=false"
            )
        if self.labeler.name != "dataset" and self.sample.responses_per_prompt < 2:
            raise ValueError(
                f"sample.responses_per_prompt (1) must be at least 2 with labeler.name ({self.labeler.name}): it ranks "
                "responses"
            )
        if self.labeler.name == "judge":
            self._check_judge()
        if self.data.source in ("stories", "world"):
            self._check_no_columns()
        if self.labeler.check_pairs and self.data.source == "world":
            raise ValueError(
                f"labeler.check_pairs ({self.labeler.check_pairs}) must be 0 with data.source (world): the world brings no "
                "pairs of its own; its rater is asked about every pair"
            )
        if self.optimizer.bits == 8 and self.engine.offload:
            raise ValueError(
                f"optimizer.bits (8) needs a GPU, and engine.name ({self.engine.name}) makes its steps on the CPU: set "
                "optimizer.bits=32, or choose engine=zero3"
            )
        if self.labeler.name == "gold" and not self.data.has_gold:
            raise ValueError(
                f"labeler.name (gold) needs a gold rater, but data.source is {self.data.source}: "
                "choose labeler=judge or labeler=reward_model, labeler=dataset where the data bring preferences, "
                "data=world, or reviews for data.rater"
            )
        if self.ppo.reward_from == "gold" and not self.data.has_gold:
            raise ValueError(
                f"ppo.reward_from (gold) needs a gold rater, but data.source is {self.data.source}: "
                "choose ppo.reward_from=reward_model, data=world, or reviews for data.rater"
            )
        if self.ppo.keep_best_by == "validation_gold_score" and not self.data.has_gold:
            raise ValueError(
                f"ppo.keep_best_by (validation_gold_score) needs a gold rater, but data.source is {self.data.source}: "
                "choose validation_score, data=world, or reviews for data.rater"
            )
        if self.evaluate.judge == "gold" and not self.data.has_gold:
            raise ValueError(
                f"evaluate.judge (gold) needs a gold rater, but data.source is {self.data.source}: "
                "choose evaluate.judge=auto, data=world, or reviews for data.rater"
            )
        if self.dpo.rounds > 1 and self.labeler.name != "gold":
            raise ValueError(
                f"dpo.rounds ({self.dpo.rounds}) must be 1 with labeler.name ({self.labeler.name}): from the second round "
                "on somebody has to label new answers, and only labeler=gold can"
            )
        if self.labeler.name == "dataset" and self.data.source == "world":
            raise ValueError(
                "labeler.name (dataset) needs preferences in the data, and data.source (world) has none: use labeler=gold"
            )
        return self

    def _check_judge(self) -> None:
        labeler, most = self.labeler, self.sample.responses_per_prompt
        if labeler.is_folder == (self.endpoint.model is not None):
            raise ValueError(
                f"labeler.path ({labeler.path}) and endpoint.model ({self.endpoint.model or 'null'}): the judge is one of "
                "the two, a folder on this machine (labeler.path=DIR) or a model of a server (endpoint.model=NAME)"
            )
        if labeler.pairs_per_prompt and not most - 1 <= labeler.pairs_per_prompt <= most * (most - 1) // 2:
            raise ValueError(
                f"labeler.pairs_per_prompt ({labeler.pairs_per_prompt}) must be 0 (all pairs) or from {most - 1} to "
                f"{most * (most - 1) // 2} with sample.responses_per_prompt ({most}): no response may be left out"
            )

    def _check_no_columns(self) -> None:
        """What says how rows are read goes with rows."""
        data = self.data
        given: dict[str, object] = {f"data.columns.{column}": name for column, name in data.columns.named().items()}
        given |= {"data.margin_per_score": data.margin_per_score} if data.margin_per_score else {}
        for name, value in given.items():
            raise ValueError(
                f"{name} ({value}) must be {0.0 if name == 'data.margin_per_score' else 'null'} with data.source "
                f"({data.source}): it says how rows of a table are read, and there are none"
            )
