"""DPO in rounds: after the first one it learns from answers of its own, labelled anew (iterated, on-policy DPO).

Pairs of SFT's answers say little about answers that only a better policy gives. Each round has prompts of its own, so that
any number of rounds learns from about as many labels. The reference stays SFT, and with it the optimum (SPEC eq. 15; Xiong
et al. 2024); were it the policy of the round before, each round would buy KL anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf import config
from rlhf.errors import UserError
from rlhf.models.batching import Batching
from rlhf.records import Preference, Prompt
from rlhf.runtime.memory import Memory
from rlhf.training.dpo import PairedRows, Reference, paired_examples, train_dpo, with_reference
from rlhf.training.loop import LoopState, Passes
from rlhf.training.rows import refuse_dropped
from rlhf.training.watch import Watch

LabelAnew = Callable[[Sequence[Prompt], int], list[Preference]]


def shares_of(preferences: Sequence[Preference], rounds: int) -> list[list[Preference]]:
    """The preferences of each round; every prompt, with all of its own, is in one of them.

    Raises:
        UserError: there are fewer prompts than rounds.
    """
    prompts = dict.fromkeys(preference.prompt for preference in preferences)
    if len(prompts) < rounds:
        raise UserError(f"dpo.rounds ({rounds}) must be at most the number of train prompts with pairs ({len(prompts)})")
    round_of = {prompt: place % rounds for place, prompt in enumerate(prompts)}
    return [[p for p in preferences if round_of[p.prompt] == number] for number in range(rounds)]


@dataclass(frozen=True)
class Rounds:
    """What DPO learns from, a round at a time.

    label_anew: preferences between answers that the policy gives at this moment to the prompts of round 2, 3, …
    """

    shares: list[list[Preference]]
    label_anew: LabelAnew
    tokenizer: PreTrainedTokenizerBase
    context: int
    max_dropped_share: float

    def preferences(self, number: int) -> Sequence[Preference]:
        """Of round 1, 2, …; the policy of the moment answers where it is not the first.

        Raises:
            UserError: all its answers are alike.
        """
        share = self.shares[number - 1]
        if number == 1:
            return share
        prompts = [Prompt(prompt, "train") for prompt in dict.fromkeys(preference.prompt for preference in share)]
        made = self.label_anew(prompts, number)
        if not made:
            raise UserError(
                f"dpo: in round {number} the policy's answers to each of {len(prompts)} prompts are all alike, and carry no "
                "preference: raise sample.temperature or sample.responses_per_prompt, or lower dpo.rounds"
            )
        return made

    def fit(self, preferences: Sequence[Preference]) -> PairedRows:
        """Preferences as ids; UserError where too many do not fit the context."""
        fitted = paired_examples(preferences, self.tokenizer, self.context)
        refuse_dropped("dpo", fitted.dropped, len(fitted.rows), self.max_dropped_share, self.context)
        return fitted

    @cached_property
    def first(self) -> PairedRows:
        """What of round 1 fits the context."""
        return self.fit(self.shares[0])

    def steps(self, passes: Passes) -> int:
        """How many optimizer steps all rounds take; fewer if in a later round answers to a prompt all tie or do not fit."""
        first = passes.steps(len(self.first.rows))
        return first + sum(passes.steps(len({pair.prompt for pair in share})) for share in self.shares[1:])


def train_rounds(
    state: LoopState,
    rounds: Rounds,
    reference: PreTrainedModel,
    memory: Memory,
    validation: Sequence[Reference],
    passes: Passes,
    batching: Batching,
    watch: Watch | None,
    dpo: config.DPO,
) -> Iterator[dict[str, float]]:
    """`train_dpo` on one round after the other, with one optimizer; rows have a `round` where there are several. A state
    that was saved within a round has its preferences, and goes on with them."""
    for number in range(max(state.round, 1), len(rounds.shares) + 1):
        begins = number > state.round
        if begins:
            with state.engine.whole():
                state.preferences, state.round, state.first = rounds.preferences(number), number, state.step
        fitted = rounds.first if number == 1 else rounds.fit(state.preferences)
        if begins:
            state.learnt.update(fitted.counts())
        with state.engine.whole():  # with adapters the reference stands on the policy's trunk
            rows = with_reference(reference, fitted.rows, batching, memory)
        for row in train_dpo(state, rows, validation, passes, batching, watch, dpo):
            yield row | ({"round": number} if len(rounds.shares) > 1 else {})
