"""The models that the settings ask for, by their sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rlhf import config
from rlhf.data.question import SAMPLE, fill, load_template
from rlhf.errors import UserError
from rlhf.models.sizes import Sizes, classifier_sizes, labeler_sizes, policy_sizes
from rlhf.runtime.plan.rules import adapted


@dataclass(frozen=True, slots=True)
class Labeler:
    """Somebody else's model that labels. causal: as in `labeler_sizes`. template: bytes of what a judge is asked beside the
    texts, which are as many tokens at most; 0 of a reward model."""

    sizes: Sizes
    causal: bool
    template: int


@dataclass(frozen=True, slots=True)
class Models:
    """The sizes of all that the settings ask for. critic: None where PPO has none of its own. labeler: None where none is in
    a folder."""

    policy: Sizes
    reward_model: Sizes
    critic: Sizes | None
    labeler: Labeler | None = None

    def named(self) -> dict[str, Sizes]:
        """By the names of the glossary."""
        critic = {"critic": self.critic} if self.critic else {}
        labeler = {"labeler": self.labeler.sizes} if self.labeler else {}
        return {"policy": self.policy, "reference": self.policy, "reward model": self.reward_model} | critic | labeler

    def within(self, max_tokens: int) -> Models:
        """The same for rows of at most so many tokens; 0: as long as they are. The labeler has a context of its own."""
        if not max_tokens:
            return self

        def cut(sizes: Sizes) -> Sizes:
            return replace(sizes, context=min(sizes.context, max_tokens))

        critic = cut(self.critic) if self.critic else None
        return replace(self, policy=cut(self.policy), reward_model=cut(self.reward_model), critic=critic)


def models_of(settings: config.Config) -> Models:
    """Their sizes, from their configs.

    Raises:
        UserError: one cannot be read, or has no layers for the adapters that are asked for.
    """
    ppo, model = settings.ppo, settings.model
    policy = policy_sizes(model)
    _refuse_no_adapters(policy, settings.lora)
    reward_model = classifier_sizes(model, settings.reward.layers)
    critic = reward_model if ppo.critic_from == "reward_model" else classifier_sizes(model, None)
    own_critic = critic if ppo.critic == "separate" else None
    return Models(policy, reward_model, own_critic, _labeler_of(settings.labeler))


def _refuse_no_adapters(policy: Sizes, lora: config.Lora) -> None:
    if lora.rank and not adapted(policy, lora):
        there = ", ".join(dict.fromkeys(linear.name for linear in policy.linears))
        raise UserError(
            f"lora.targets ({', '.join(lora.targets)}): no linear layer of the model has such a name, so none gets an "
            f"adapter; choose among {there}, or lora.targets=[] for all"
        )


def _labeler_of(labeler: config.Labeler) -> Labeler | None:
    """None: no model labels, or a server has it."""
    if not (labeler.ranks_texts and labeler.is_folder):
        return None
    judge = labeler.name == "judge"
    question = fill(load_template(labeler.template), labeler.template, SAMPLE, "", "") if judge else ""
    return Labeler(*labeler_sizes(labeler.path, judge=judge), len(question.encode()))
