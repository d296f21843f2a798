"""Direct preference optimization: the policy is its own reward model (SPEC section 5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf import config
from rlhf.maths.losses import dpo_hinge_loss, dpo_loss, ipo_loss
from rlhf.models.batching import Batching
from rlhf.models.forward import response_logprobs, summed_logprobs_of
from rlhf.models.tokens import Example, collate, encode_response, fit
from rlhf.records import Messages, Preference
from rlhf.runtime.engine import Engine
from rlhf.runtime.memory import Memory
from rlhf.training.loop import LoopState, Passes
from rlhf.training.watch import Watch, look, said


@dataclass(frozen=True, slots=True)
class PairedExamples:
    """One prompt's distinct responses as ids, and the (chosen, rejected) pairs among them.

    A response that stands in several pairs is computed once.
    """

    examples: list[Example]
    pairs: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class PairedRows:
    """What became of preferences that had to fit the context: prompts cut, prompts dropped."""

    rows: list[PairedExamples]
    truncated: int
    dropped: int

    def counts(self) -> dict[str, int]:
        pairs = sum(len(row.pairs) for row in self.rows)
        return {"prompts": len(self.rows), "pairs": pairs, "truncated_prompts": self.truncated, "dropped": self.dropped}


def paired_examples(preferences: Sequence[Preference], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> PairedRows:
    """Preferences by prompt, as ids; a prompt is dropped only if one of its responses leaves no room for it."""
    by_prompt: dict[Messages, list[Preference]] = {}
    for preference in preferences:
        by_prompt.setdefault(preference.prompt, []).append(preference)
    rows, truncated, dropped = [], 0, 0
    for prompt, group in by_prompt.items():
        sides = [
            ((p.chosen, p.chosen_ended, p.chosen_token_ids), (p.rejected, p.rejected_ended, p.rejected_token_ids))
            for p in group
        ]
        places = {side: i for i, side in enumerate(dict.fromkeys(side for pair in sides for side in pair))}
        responses = [encode_response(tokenizer, *side) for side in places]
        fitted = fit(tokenizer, prompt, responses, max_tokens)
        if fitted is None:
            dropped += 1
            continue
        truncated += fitted.truncated
        rows.append(PairedExamples(fitted.examples, [(places[chosen], places[rejected]) for chosen, rejected in sides]))
    return PairedRows(rows, truncated, dropped)


@dataclass(frozen=True, slots=True)
class Reference:
    """A row and what the reference gives its responses: (K,) nats per response. Computed once, before the first step."""

    row: PairedExamples
    logps: Tensor


def with_reference(
    reference: PreTrainedModel, rows: Sequence[PairedExamples], batching: Batching, memory: Memory | None = None
) -> list[Reference]:
    """The reference's summed log-probabilities beside every row, from `memory` where it has said them before."""
    examples = [e for row in rows for e in row.examples]
    ask = partial(summed_logprobs_of, reference)
    logps = memory.recall(ask, examples, batching) if memory else ask(examples, batching)
    return [Reference(row, part) for row, part in zip(rows, logps.split([len(r.examples) for r in rows]), strict=True)]


def train_dpo(
    state: LoopState,
    train: Sequence[Reference],
    validation: Sequence[Reference],
    passes: Passes,
    batching: Batching,
    watch: Watch | None,
    dpo: config.DPO,
) -> Iterator[dict[str, float]]:
    """Steps to the end of the last epoch; a row each, with figures on validation before the first, every so often and at the
    end.

    watch: what the policy says by itself then, too, where that is wanted; some of it is kept in `state.said`.
    """
    policy = state.engine.model
    assert isinstance(policy, PreTrainedModel)
    if state.step == 0 and not state.said:
        with state.engine.whole():
            row = _validate(state, policy, validation, batching, watch, dpo)
        yield {"step": 0} | row
    while state.done < passes.steps(len(train)):
        rows = [train[i] for i in passes.draw(len(train), state.done)]
        row = _learn(state.engine, policy, rows, dpo, batching)
        state.step += 1
        if passes.evaluates(len(train), state.done):
            with state.engine.whole():
                row |= _validate(state, policy, validation, batching, watch, dpo)
        yield {"step": state.step} | row


def _validate(
    state: LoopState,
    policy: PreTrainedModel,
    validation: Sequence[Reference],
    batching: Batching,
    watch: Watch | None,
    dpo: config.DPO,
) -> dict[str, float]:
    """What the policy makes of the validation pairs, where there are any, and what it says by itself."""
    figures: dict[str, float] = {}
    if validation:
        found = implicit_rewards(policy, validation, dpo, batching)
        figures |= {f"validation_{name}": value for name, value in found.items()}
    if watch:
        seen = look(policy, watch)
        state.said.append(said(state.step, seen, watch))
        figures |= seen.figures
    return figures


def _learn(
    engine: Engine,
    policy: PreTrainedModel,
    rows: Sequence[Reference],
    dpo: config.DPO,
    batching: Batching,
) -> dict[str, float]:
    """One step on the mean over the step's pairs."""
    device = next(policy.parameters()).device
    pairs = sum(len(r.row.pairs) for r in rows)

    def loss_of(part: list[Reference]) -> tuple[Tensor, tuple[float, Pairs]]:
        batch = collate([e for r in part for e in r.row.examples], batching.pad_id).to(device)
        # Summed in float64: neither padding nor the order of the terms moves a margin off 0 where policy is reference.
        both = pair_up(response_logprobs(policy, batch).double().sum(1), part)
        loss = pair_loss(both, dpo, dpo.label_smoothing) * (len(both.chosen) / pairs)
        return loss, (loss.item(), both.told())

    lengths = [[len(e) for e in r.row.examples] for r in rows]
    parts = [[rows[i] for i in group] for group in batching.cut_sets(lengths)]
    done = engine.step(parts, loss_of)
    figures = figures_of([pairs for _, pairs in done.told], dpo.beta)
    return {"loss": sum(loss for loss, _ in done.told), "gradient_norm": done.norm, "lr": engine.lr} | figures


@dataclass(frozen=True, slots=True)
class Pairs:
    """Summed log-probabilities of N pairs, each (N,), nats per response."""

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor

    def told(self) -> Pairs:
        """The numbers alone, on the CPU."""
        return Pairs(*(x.detach().cpu() for x in (self.chosen, self.rejected, self.ref_chosen, self.ref_rejected)))


def pair_loss(pairs: Pairs, dpo: config.DPO, label_smoothing: float = 0.0) -> Tensor:
    """The mean over the pairs of the loss that `dpo.loss` names."""
    four = (pairs.chosen, pairs.rejected, pairs.ref_chosen, pairs.ref_rejected)
    match dpo.loss:
        case "sigmoid":
            return dpo_loss(*four, dpo.beta, label_smoothing)
        case "ipo":
            return ipo_loss(*four, dpo.beta)
        case "hinge":
            return dpo_hinge_loss(*four, dpo.beta)


def pair_up(logps: Tensor, part: Sequence[Reference]) -> Pairs:
    """The policy's log-probabilities of all the part's responses, (sum of K,), as pairs beside the reference's."""
    ref = torch.cat([r.logps for r in part]).to(logps.device)
    starts = torch.tensor([0] + [len(r.row.examples) for r in part]).cumsum(0).tolist()
    places = [(s + c, s + j) for s, r in zip(starts, part, strict=False) for c, j in r.row.pairs]
    chosen, rejected = torch.tensor(places, device=logps.device).unbind(1)
    return Pairs(logps[chosen], logps[rejected], ref[chosen], ref[rejected])


def figures_of(seen: Sequence[Pairs], beta: float) -> dict[str, float]:
    """Chosen and rejected apart, because both often fall while their margin grows (Rafailov et al. 2023)."""
    chosen, rejected, ref_chosen, ref_rejected = (
        torch.cat([getattr(pairs, name).detach().double() for pairs in seen])
        for name in ("chosen", "rejected", "ref_chosen", "ref_rejected")
    )
    chosen_reward, rejected_reward = beta * (chosen - ref_chosen), beta * (rejected - ref_rejected)
    margin = chosen_reward - rejected_reward
    return {
        "accuracy": float((margin > 0).double().mean() + (margin == 0).double().mean() / 2),
        "reward_margin": float(margin.mean()),
        "chosen_reward": float(chosen_reward.mean()),
        "rejected_reward": float(rejected_reward.mean()),
        "chosen_logps": float(chosen.mean()),
        "rejected_logps": float(rejected.mean()),
    }


def implicit_rewards(
    policy: PreTrainedModel, rows: Sequence[Reference], dpo: config.DPO, batching: Batching
) -> dict[str, float]:
    """`figures_of` over all the rows, without gradients, and the loss on them, its labels taken as they are."""
    now = torch.cat([r.logps for r in with_reference(policy, [r.row for r in rows], batching)])
    both = pair_up(now, rows)
    return {"loss": float(pair_loss(both, dpo))} | figures_of([both], dpo.beta)
