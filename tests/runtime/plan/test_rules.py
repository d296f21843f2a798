"""The rules of memory by numbers worked out by hand, and by what real models, gradients, optimizers and graphs hold."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig, PreTrainedModel, Qwen3Config

from rlhf import config
from rlhf.models.forward import response_logprobs
from rlhf.models.sizes import Linear, Sizes, sizes_of
from rlhf.models.tokens import Example, collate
from rlhf.runtime import engine as engines
from rlhf.runtime import settings
from rlhf.runtime.plan import rules
from tests.runtime.conftest import ROOT

TOLERANCE = 0.05  # of the activations of a trunk
IDS = torch.randint(1, 61, (3, 64), generator=torch.Generator().manual_seed(0))


def engine(**changes: Any) -> config.Engine:
    return config.Engine(**_settings().engine.model_dump() | changes)


def optimizer(**changes: Any) -> config.Optimizer:
    return config.Optimizer(**_settings().optimizer.model_dump() | changes)


def _settings() -> config.Config:
    return settings.validate(settings.values_of(settings.compose(ROOT)))


def made(kind: PretrainedConfig) -> tuple[PreTrainedModel, Sizes]:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(kind))
    return model, sizes_of(model, 0)


LLAMA = LlamaConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=88,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
)
GPT2 = GPT2Config(
    vocab_size=61, n_embd=32, n_layer=3, n_head=4, n_positions=128, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, eos_token_id=2
)
QWEN3 = Qwen3Config(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=88,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=128,
)
KINDS = pytest.mark.parametrize("kind", [LLAMA, GPT2, QWEN3], ids=["llama", "gpt2", "qwen3"])


@pytest.mark.parametrize(
    ("dtype", "bits", "bytes_each"),
    [
        ("float32", 32, (4, 0, 4, 8)),
        ("bfloat16", 32, (2, 4, 4, 8)),
        ("float32", 8, (4, 0, 4, 2)),
        ("bfloat16", 8, (2, 4, 4, 2)),
    ],
)
def test_bytes_of_a_parameter_that_learns(dtype: str, bits: int, bytes_each: tuple[int, ...]) -> None:
    state = rules.learning(1000, engine(dtype=dtype), optimizer(bits=bits))
    assert (state.weights, state.masters, state.gradients, state.moments) == tuple(1000 * x for x in bytes_each)
    assert state.total == 1000 * sum(bytes_each)
    assert state.waiting == 0


@pytest.mark.parametrize(("dtype", "each"), [("float32", 4), ("bfloat16", 2)])
def test_bytes_of_a_parameter_that_stands_still(dtype: str, each: int) -> None:
    assert rules.standing(1000, engine(dtype=dtype)) == rules.State(weights=1000 * each)


@pytest.mark.parametrize(
    ("name", "dtype", "shares"),
    [
        ("zero0", "float32", (1, 1, 1, 1)),
        ("zero1", "bfloat16", (1, 4, 1, 4)),
        ("zero2", "bfloat16", (1, 4, 4, 4)),
        ("zero3", "bfloat16", (4, 4, 4, 4)),
    ],
)
def test_zero_shares_out_more_with_every_stage(name: str, dtype: str, shares: tuple[int, ...]) -> None:
    state = rules.learning(1000, engine(name=name, processes=4, dtype=dtype), optimizer())
    whole = {"float32": (4000, 0, 4000, 8000), "bfloat16": (2000, 4000, 4000, 8000)}[dtype]
    expected = tuple(x / share for x, share in zip(whole, shares, strict=True))
    assert (state.weights, state.masters, state.gradients, state.moments) == expected


def test_offload_leaves_nothing_on_the_device_but_what_is_put_together() -> None:
    offload = engine(name="zero3_offload", processes=4, dtype="bfloat16")
    assert rules.learning(1000, offload, optimizer()) == rules.State(waiting=1000 * 18 / 4)
    _, sizes = made(LLAMA)
    assert rules.gathered(sizes, offload) == 2 * max(2 * sizes.layer.parameters, 61 * 32)
    assert rules.gathered(replace(sizes, vocabulary=10**6), offload) == 2 * 10**6 * 32
    assert rules.gathered(sizes, engine(name="zero2", processes=4)) == 0


@KINDS
def test_weights_gradients_and_moments_are_those_of_a_real_step(kind: PretrainedConfig) -> None:
    """By the project's own engine, in float32."""
    model, sizes = made(kind)
    real = engines.make_engine(model, 1e-3, 0.0, 1, optimizer(), engine())
    real.step([torch.ones(1, 4, dtype=torch.long)], lambda ids: (model(input_ids=ids).logits.sum(), None))
    state = rules.learning(sizes.parameters, engine(), optimizer())
    assert state.weights == sum(p.nbytes for p in model.parameters())
    assert state.gradients == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    moments = [t for of_one in real.state_dict()["moments"].values() for t in of_one.values() if t.dim()]
    assert state.moments == sum(t.nbytes for t in moments)


def saved_bytes(model: PreTrainedModel, ids: Tensor) -> int:
    """What the trunk's graph keeps, each piece of memory once; the model's own weights and tables left out."""
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own and tensor.is_floating_point():
            kept[place] = tensor
        return tensor

    head = nn.Linear(model.config.hidden_size, 1, bias=False, dtype=model.dtype)  # its input is the last that is kept
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = head(model.base_model(input_ids=ids, use_cache=False).last_hidden_state).sum()
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del loss
    return total


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_those_of_a_real_graph(kind: PretrainedConfig, dtype: str) -> None:
    model, sizes = made(kind)
    model.to(getattr(torch, dtype))
    planned = rules.activations(sizes, IDS.numel(), engine(dtype=dtype), row=IDS.shape[1])
    assert planned == pytest.approx(saved_bytes(model, IDS), rel=TOLERANCE)


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_eager_kernel_takes_no_more_than_is_planned(kind: PretrainedConfig, dtype: str) -> None:
    """GPT-2's adds up in bfloat16 what others add up in float32, and keeps less than half of it."""
    model, sizes = made(kind)
    model.set_attn_implementation("eager")
    model.to(getattr(torch, dtype))
    planned = rules.activations(sizes, IDS.numel(), engine(dtype=dtype, attention="eager"), row=IDS.shape[1])
    kept = saved_bytes(model, IDS)
    assert (1 - 2 * TOLERANCE) * kept < planned < 1.5 * kept
    assert rules.activations(sizes, IDS.numel(), engine(dtype=dtype), row=IDS.shape[1]) < (1 - 2 * TOLERANCE) * kept


@KINDS
def test_checkpointed_activations_are_the_inputs_of_layers_and_one_inside(kind: PretrainedConfig) -> None:
    """The graph holds the inputs when the forward pass is over; the inside of one layer comes in the backward pass. Of six
    vectors of a token here, one is of an RMS norm at the end, and GPT-2 has none."""
    model, sizes = made(kind)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    kept = saved_bytes(model, IDS)
    planned = rules.activations(sizes, IDS.numel(), engine(gradient_checkpointing=True), row=64)
    inside = IDS.numel() * rules.kept_of_layer(sizes.layer, 4)
    assert planned - inside == pytest.approx(kept, rel=1 / 5)
    assert planned < rules.activations(sizes, IDS.numel(), engine(), row=64)


def test_what_a_layer_keeps_by_hand() -> None:
    """A llama: 4 x (queries, keys, values, what attention says, both residuals, four of the middle) and two norms."""
    _, sizes = made(LLAMA)
    inside = 32 + 16 + 16 + 32 + 2 * 32 + 4 * 88
    assert rules.kept_of_layer(sizes.layer, 4) == 4 * (inside + 2 * 64)
    assert rules.kept_of_layer(sizes.layer, 2) == 2 * (inside + 2 * 64) + 2 * 64


def test_only_the_eager_kernel_keeps_a_matrix_of_the_whole_row() -> None:
    _, sizes = made(LLAMA)
    assert rules.scores_kept(sizes, "sdpa", 100, 4) == rules.scores_kept(sizes, "auto", 100, 4) == 0
    assert rules.scores_kept(sizes, "eager", 100, 4) == 4 * 100 * 4
    assert rules.scores_kept(sizes, "eager", 100, 2) == 4 * 100 * 6
    capped = replace(sizes, soft_capped=True, attention="eager")
    assert rules.scores_kept(capped, "auto", 100, 4) == 4 * 100 * 8


def test_logits_are_kept_three_times_in_float32() -> None:
    """Of the tokens of responses: log-softmax, its gradient, and that of the logits, as a real backward pass makes them."""
    model, sizes = made(LLAMA)
    batch = collate([Example([5], [6] * 20)], 0)
    logprobs = response_logprobs(model, batch)
    softmax = logprobs.grad_fn
    while softmax is not None and "LogSoftmax" not in softmax.name():
        softmax = softmax.next_functions[0][0] or softmax.next_functions[-1][0]
    assert softmax is not None
    made_here = [softmax._saved_result.nbytes]  # type: ignore[attr-defined]

    def seen(below: tuple[Tensor, ...], above: tuple[Tensor, ...]) -> None:
        made_here.extend([above[0].nbytes, below[0].nbytes])

    softmax.register_hook(seen)
    logprobs.sum().backward()
    assert made_here == [20 * 61 * 4] * rules.LOGIT_COPIES
    learnt = rules.learn_pass("step", sizes, 20, engine(), head=True)
    assert learnt.logits == sum(made_here)
    assert rules.learn_pass("step", sizes, 20, engine(), head=False).logits == 0


def test_keys_and_values_of_responses_written_side_by_side() -> None:
    """2 x layers x heads of keys x their width x tokens x rows, and one layer's twice."""
    _, sizes = made(LLAMA)
    drawn = rules.sampling_pass("sampling", sizes, 10, 28, engine(dtype="bfloat16"))
    assert drawn.cache == pytest.approx(10 * 128 * (3 * 2 * 2 * 8) * 2 * (4 / 3))
    assert drawn.logits == 20 * 10 * 61
    prompt = 128 - 28
    assert drawn.activations == 10 * prompt * 2 * (2 * 32 + 3 * 88) + 10 * prompt**2 * 3


def test_adapters_are_rank_times_inputs_and_outputs_of_the_layers_named() -> None:
    _, sizes = made(LLAMA)
    sizes = replace(sizes, linears=(Linear("q_proj", 32, 48), Linear("down_proj", 88, 32), Linear("q_proj", 32, 48)))
    lora = _settings().lora.model_dump()
    assert rules.adapters(sizes, config.Lora(**lora | {"rank": 4})) == 4 * (80 + 120 + 80)
    for target in ("q_proj", "self_attn.q_proj"):
        assert rules.adapters(sizes, config.Lora(**lora | {"rank": 4, "targets": [target]})) == 4 * 160
