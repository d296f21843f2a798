"""DPO in rounds: after the first one it learns from answers of its own, labelled anew (iterated, on-policy DPO).

Pairs of SFT's answers say little about answers that only a better policy gives. Each round has prompts of its own, so that
any number of rounds costs the same number of labels. The reference stays SFT, and with it the optimum (SPEC eq. 15; Xiong
et al. 2024, algorithm 1); were it the policy of the round before, each round would buy KL anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf import config
from rlhf.errors import UserError
from rlhf.models.forward import Batching
from rlhf.records import Preference, Prompt
from rlhf.runtime.memory import Memory
from rlhf.training.dpo import PairedRows, Reference, paired_examples, train_dpo, with_reference
from rlhf.training.loop import LoopState, Passes
from rlhf.training.rows import refuse_dropped
from rlhf.training.watch import Watch

LabelAnew = Callable[[Sequence[Prompt], int], list[Preference]]


def shares_of(preferences: Sequence[Preference], rounds: int) -> list[list[Preference]]:
    """The preferences of each round: those of every so-manieth prompt; no prompt stands in two.

    Raises:
        UserError: there are fewer prompts than rounds.
    """
    prompts = dict.fromkeys(preference.prompt for preference in preferences)
    if len(prompts) < rounds:
        raise UserError(f"dpo.rounds ({rounds}) must be at most the number of train prompts with pairs ({len(prompts)})")
    round_of = {prompt: place % rounds for place, prompt in enumerate(prompts)}
    return [[p for p in preferences if round_of[p.prompt] == number] for number in range(rounds)]


@dataclass
class Rounds:
    """What DPO learns from, a round at a time.

    label_anew: preferences between answers that the policy gives at this moment to the prompts of round 2, 3, …
    fitted: what became of the preferences of the rounds so far.
    """

    shares: list[list[Preference]]
    label_anew: LabelAnew
    tokenizer: PreTrainedTokenizerBase
    context: int
    max_dropped_share: float
    fitted: list[PairedRows] = field(default_factory=list)

    def rows(self, reference: PreTrainedModel, batching: Batching, memory: Memory) -> Iterator[list[Reference]]:
        """Of each round in turn, made when it is asked for: the policy of that moment answers.

        Raises:
            UserError: a round has no pair to learn from, or too many that do not fit the context.
        """
        for number, share in enumerate(self.shares, start=1):
            pairs = share if number == 1 else self._anew(share, number)
            fitted = paired_examples(pairs, self.tokenizer, self.context)
            refuse_dropped("dpo", fitted.dropped, len(fitted.rows), self.max_dropped_share, self.context)
            self.fitted.append(fitted)
            yield with_reference(reference, fitted.rows, batching, memory)

    def _anew(self, share: Sequence[Preference], number: int) -> list[Preference]:
        prompts = [Prompt(prompt, "train") for prompt in dict.fromkeys(preference.prompt for preference in share)]
        pairs = self.label_anew(prompts, number)
        if not pairs:
            raise UserError(
                f"dpo: in round {number} the policy's answers to each of {len(prompts)} prompts are all alike, and carry no "
                "preference: raise sample.temperature or sample.responses_per_prompt, or lower dpo.rounds"
            )
        return pairs

    def steps(self, passes: Passes) -> int:
        """How many optimizer steps all rounds take; fewer where a later round finds prompts whose answers tie."""
        return sum(passes.steps(len({preference.prompt for preference in share})) for share in self.shares)

    def counts(self) -> dict[str, int]:
        """Of all rounds so far, together."""
        rows = [row for fitted in self.fitted for row in fitted.rows]
        return {
            "prompts": len(rows),
            "pairs": sum(len(row.pairs) for row in rows),
            "truncated_prompts": sum(fitted.truncated for fitted in self.fitted),
            "dropped": sum(fitted.dropped for fitted in self.fitted),
        }


def train_rounds(
    state: LoopState,
    rounds: Iterable[Sequence[Reference]],
    validation: Sequence[Reference],
    passes: Passes,
    batching: Batching,
    watch: Watch | None,
    dpo: config.DPO,
) -> Iterator[dict[str, float]]:
    """`train_dpo` on the rows of one round after the other, with one optimizer; a row a step, in a column of its own the
    round where there are several."""
    for number, rows in enumerate(rounds, start=1):
        state.first = state.step
        for row in train_dpo(state, rows, validation, passes, batching, watch, dpo):
            yield row | ({"round": number} if dpo.rounds > 1 else {})
