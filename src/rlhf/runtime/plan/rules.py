"""What a model and a pass over tokens take of memory, in bytes: pure functions of sizes and settings.

A parameter that learns in float32 takes 4 bytes, its gradient 4, AdamW's two moments 8. In bfloat16 it takes 2, with a
float32 copy of 4 beside it that the optimizer moves, and the gradient is added up in float32: 4. Moments of 8 bits take 2.
ZeRO (Rajbhandari et al. 2020) shares copies and moments out among the processes in stage 1, gradients in stage 2, weights
in stage 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf import config
from rlhf.models.sizes import Layer, Linear, Sizes

FLOAT = 4
LOGIT_COPIES = 3  # the log-softmax, its gradient, and that of the logits
DRAWN_BYTES = 20  # of a logit that is drawn from: itself, and twice its probability in float64 on the way


@dataclass(frozen=True, slots=True)
class State:
    """What a model keeps from step to step, in bytes of one process.

    waiting: in the memory of the CPU, where ZeRO has put it. masters: float32 copies of weights in bfloat16.
    """

    weights: float = 0.0
    masters: float = 0.0
    gradients: float = 0.0
    moments: float = 0.0
    waiting: float = 0.0

    @property
    def total(self) -> float:
        return self.weights + self.masters + self.gradients + self.moments


@dataclass(frozen=True, slots=True)
class Pass:
    """What something that a stage does takes while it lasts, in bytes. cache: keys and values of responses being written."""

    name: str
    weights: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    cache: float = 0.0

    @property
    def total(self) -> float:
        return self.weights + self.activations + self.logits + self.cache


def width(engine: config.Engine) -> int:
    """Bytes of a number that the model computes with."""
    return 2 if engine.dtype == "bfloat16" else FLOAT


def standing(parameters: int, engine: config.Engine) -> State:
    """A model that stands still; every process has the whole of it."""
    return State(weights=parameters * width(engine))


def trunk(parameters: int, engine: config.Engine) -> State:
    """What stands still within a model that learns adapters; ZeRO's third stage shares it out with the rest."""
    mine = parameters * width(engine) / (engine.processes if engine.zero_stage >= 3 else 1)
    return State(waiting=mine) if engine.offload else State(weights=mine)


def learning(parameters: int, engine: config.Engine, optimizer: config.Optimizer) -> State:
    """Parameters that learn, without what ZeRO's third stage puts together for a layer (`gathered`)."""
    parts, stage = engine.processes, engine.zero_stage
    whole = State(
        weights=parameters * width(engine),
        masters=parameters * FLOAT if width(engine) < FLOAT else 0.0,
        gradients=parameters * FLOAT,
        moments=parameters * (2 if optimizer.bits == 8 else 2 * FLOAT),
    )
    mine = State(
        weights=whole.weights / (parts if stage >= 3 else 1),
        masters=whole.masters / (parts if stage >= 1 else 1),
        gradients=whole.gradients / (parts if stage >= 2 else 1),
        moments=whole.moments / (parts if stage >= 1 else 1),
    )
    return State(waiting=mine.total) if engine.offload else mine


def gathered(sizes: Sizes, engine: config.Engine) -> float:
    """What ZeRO's third stage puts together at once: two layers, one in use and the next; or the table of words."""
    if engine.zero_stage < 3:
        return 0.0
    return float(width(engine) * max(2 * sizes.layer.parameters, sizes.vocabulary * sizes.hidden))


def whole(learners: Sequence[Sizes], engine: config.Engine) -> float:
    """What ZeRO's third stage puts together beside a process's own parts where models sample, evaluate or are saved."""
    if engine.zero_stage < 3:
        return 0.0
    own = 0.0 if engine.offload else 1 / engine.processes
    return float(width(engine) * sum(sizes.parameters for sizes in learners) * (1 - own))


def adapters(sizes: Sizes, lora: config.Lora) -> int:
    """Parameters of low-rank adapters: rank x (inputs + outputs) of each linear layer that gets one."""
    return lora.rank * sum(linear.inputs + linear.outputs for linear in adapted(sizes, lora))


def adapted(sizes: Sizes, lora: config.Lora) -> list[Linear]:
    """The linear layers that get adapters: all, or those that `lora.targets` name, by what stands behind the last dot."""
    names = {target.rpartition(".")[2] for target in lora.targets}
    return [linear for linear in sizes.linears if not names or linear.name in names]


def kept_of_layer(layer: Layer, number: int) -> int:
    """Bytes a token that one layer keeps for its backward pass; number: bytes of a number.

    What its linear layers say, what attention says, what comes of it between them; behind a norm its output, and of an RMS
    norm also what is not yet weighted, and its input in float32.
    """
    through = layer.outputs + layer.attended + layer.activated + layer.layer_norms + 2 * layer.rms_norms
    return number * through + (FLOAT - number) * layer.rms_norms


def scores_kept(sizes: Sizes, attention: str, row: int, number: int) -> int:
    """Bytes a token and layer of attention's own matrix over rows of so many tokens; only the eager kernel keeps it."""
    if (sizes.attention if attention == "auto" else attention) != "eager":
        return 0
    copies = FLOAT + (number if number < FLOAT else 0) + (number if sizes.soft_capped else 0)
    return sizes.heads * row * copies


def activations(sizes: Sizes, tokens: int, engine: config.Engine, row: int) -> float:
    """What the trunk keeps of a micro-batch of so many tokens, its rows at most `row` long; with gradient checkpointing the
    input of every layer, and the inside of one."""
    number = width(engine)
    layer = kept_of_layer(sizes.layer, number) + scores_kept(sizes, engine.attention, row, number)
    ends = 3 * sizes.hidden * number  # the embeddings, and the last norm's two
    inside = sizes.layers * sizes.hidden * number + layer if engine.gradient_checkpointing else sizes.layers * layer
    return float(tokens * (inside + ends))


def learn_pass(name: str, sizes: Sizes, tokens: int, engine: config.Engine, *, head: bool) -> Pass:
    """Forward and backward over a micro-batch. head: logits of all its tokens, in float32, as if prompts were short."""
    logits = LOGIT_COPIES * FLOAT * sizes.vocabulary * tokens if head else 0.0
    return Pass(name, gathered(sizes, engine), activations(sizes, tokens, engine, sizes.context), logits)


def read_pass(name: str, sizes: Sizes, tokens: int, engine: config.Engine) -> Pass:
    """A forward pass that keeps nothing, with log-probabilities."""
    logits = LOGIT_COPIES * FLOAT * sizes.vocabulary * tokens
    return Pass(name, activations=_in_flight(sizes, tokens, engine), logits=logits)


def grading_pass(name: str, sizes: Sizes, tokens: int, row: int, engine: config.Engine, *, verdicts: int) -> Pass:
    """A forward pass of a labeler's model, rows of at most so many tokens, which keeps nothing. verdicts: tokens whose
    log-probabilities are asked for. Of an eager kernel's matrix there are two, before the softmax and behind it."""
    matrices = 2.0 * tokens * scores_kept(sizes, engine.attention, row, FLOAT)
    logits = float(LOGIT_COPIES * FLOAT * sizes.vocabulary * verdicts)
    return Pass(name, activations=_in_flight(sizes, tokens, engine) + matrices, logits=logits)


def sampling_pass(
    name: str, sizes: Sizes, rows: int, max_response_tokens: int, engine: config.Engine, weights: float = 0.0
) -> Pass:
    """Responses written side by side, the longest prompts with the longest responses: the pass over all prompts at once
    with its mask (as truth values and as numbers), the logits drawn from, keys and values, one layer's twice as it grows."""
    prompt = sizes.context - max_response_tokens
    mask = rows * prompt**2 * (1 + width(engine))
    cache = rows * sizes.context * sizes.key_values * width(engine)
    return Pass(
        name,
        weights=weights,
        activations=_in_flight(sizes, rows * prompt, engine) + mask,
        logits=DRAWN_BYTES * sizes.vocabulary * rows,
        cache=cache * (1 + 1 / sizes.layers),
    )


def _in_flight(sizes: Sizes, tokens: int, engine: config.Engine) -> float:
    """The residual stream, a norm of it, and the widest three tensors of a layer."""
    return float(tokens * width(engine) * (2 * sizes.hidden + 3 * sizes.layer.middle))
