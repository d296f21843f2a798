"""The engine: AdamW, its schedule and clipping by hand, a step cut in any way, and DeepSpeed beside plain torch."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlhf.errors import UserError
from rlhf.models.forward import response_logprobs
from rlhf.models.tokens import Batch, collate
from rlhf.runtime.engine import make_engine
from rlhf.runtime.engine.schedule import learning_rate
from tests.helpers import assert_near
from tests.models.tiny_models import PAD, make_policy, random_examples
from tests.training.table import engine_for, engine_settings, learned, optimizer, step, weights

ROOT = Path(__file__).parents[2]


def test_the_schedule_by_hand() -> None:
    """Two steps of warm-up, then seven equal steps down to a tenth."""
    rates = [learning_rate(step, 10, 2.0, 0.2, 0.1, "linear") for step in range(10)]
    assert_near(rates, [1.0, 2.0, *(0.2 + 1.8 * i / 7 for i in range(7, -1, -1))])


@pytest.mark.parametrize(
    ("steps", "warmup_share", "final", "expected"),
    [
        (3, 0.0, 0.0, [1.0, 0.5, 0.0]),
        (1, 0.05, 0.1, [1.0]),
        (2, 0.05, 0.1, [1.0, 0.1]),
        (4, 1.0, 0.5, [0.25, 0.5, 0.75, 1.0]),
        (3, 0.0, 1.0, [1.0, 1.0, 1.0]),
    ],
)
def test_schedules_at_the_edges(steps: int, warmup_share: float, final: float, expected: list[float]) -> None:
    assert_near([learning_rate(step, steps, 1.0, warmup_share, final, "linear") for step in range(steps)], expected)


def test_beyond_its_last_step_the_rate_stays_at_its_end() -> None:
    assert_near(learning_rate(12, 10, 1.0, 0.0, 0.25, "linear"), 0.25)


def test_other_schedules_by_hand() -> None:
    """After one step of warm-up, half a cosine from 1 down to a fifth; or nothing."""
    cosine = [learning_rate(step, 6, 1.0, 0.1, 0.2, "cosine") for step in range(6)]
    assert_near(cosine, [1.0, *(0.2 + 0.8 * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(5))])
    assert [learning_rate(step, 6, 3.0, 0.3, 0.2, "constant") for step in range(6)] == [1.5, 3.0, 3.0, 3.0, 3.0, 3.0]


class AdamWByHand:
    """Loshchilov and Hutter 2019, algorithm 2, on one float."""

    def __init__(self, beta1: float, beta2: float, eps: float, weight_decay: float) -> None:
        self.beta1, self.beta2, self.eps, self.weight_decay = beta1, beta2, eps, weight_decay
        self.m = self.v = 0.0
        self.t = 0

    def step(self, x: float, gradient: float, lr: float) -> float:
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * gradient
        self.v = self.beta2 * self.v + (1 - self.beta2) * gradient**2
        m, v = self.m / (1 - self.beta1**self.t), self.v / (1 - self.beta2**self.t)
        return x - lr * self.weight_decay * x - lr * m / (math.sqrt(v) + self.eps)


class Numbers(nn.Module):
    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(numbers, dtype=torch.float64))


def parabola(model: Numbers, target: float) -> Tensor:
    return ((model.x - target) ** 2).sum()


def test_steps_are_adamw_with_the_schedule_and_the_norm_clipped() -> None:
    model, lr, steps, largest = Numbers(1.0, -3.0), 0.1, 5, 2.0
    adamw = optimizer(beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.05, max_grad_norm=largest, final_lr_share=0.2)
    engine = make_engine(model, lr, 0.4, steps, adamw, engine_settings())
    by_hand, x = [AdamWByHand(0.8, 0.9, 1e-6, 0.05) for _ in range(2)], [1.0, -3.0]
    for number in range(steps):
        gradients = [2 * (value - 0.5) + 2 * (value + 1.0) for value in x]
        norm = math.hypot(*gradients)
        rate = learning_rate(number, steps, lr, 0.4, 0.2, "linear")
        clipped = [g * min(1.0, largest / norm) for g in gradients]
        x = [a.step(value, g, rate) for a, value, g in zip(by_hand, x, clipped, strict=True)]
        assert_near(step(engine, [0.5, -1.0], lambda target: parabola(model, target)), norm, 1e-6)
        assert_near(engine.lr, rate)
        assert_near(model.x, torch.tensor(x, dtype=torch.float64), 1e-6)


def test_frozen_parameters_stay_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    before = weights(model[0])
    step(engine_for(model, weight_decay=0.5), [1.0], lambda _: model(torch.ones(1, 2)).sum())
    assert torch.equal(weights(model[0]), before)


def test_gradients_of_an_earlier_step_are_gone() -> None:
    model = Numbers(1.0)
    engine = engine_for(model, max_grad_norm=1e9)
    step(engine, [0.0], lambda target: parabola(model, target))
    expected = 2 * float(model.x.detach()[0])
    assert_near(step(engine, [0.0], lambda target: parabola(model, target)), expected, 1e-6)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_step_that_is_not_finite_is_refused_and_nothing_moves(broken: float) -> None:
    model = Numbers(1.0, 2.0)
    engine = engine_for(model)
    step(engine, [0.0], lambda target: parabola(model, target))
    before, state = weights(model), json.dumps(engine.state_dict()["moments"], default=str)
    with pytest.raises(UserError, match=r"optimizer step 1: the gradient's norm is (nan|inf)"):
        step(engine, [0.0, broken], lambda target: parabola(model, target))
    assert torch.equal(weights(model), before)
    assert json.dumps(engine.state_dict()["moments"], default=str) == state
    assert engine.state_dict()["steps_done"] == 1
    step(engine, [0.0], lambda target: parabola(model, target))
    assert weights(model).isfinite().all()


def test_saving_and_loading_gives_the_same_bits() -> None:
    def steps(model: Numbers, engine: Any, count: int) -> None:
        for _ in range(count):
            step(engine, [0.5, 3.0], lambda target: parabola(model, target))

    settings = {"weight_decay": 0.1, "final_lr_share": 0.1}
    whole, first, second = (Numbers(1.0, 2.0) for _ in range(3))
    steps(whole, engine_for(whole, **settings), 6)
    engine = engine_for(first, **settings)
    steps(first, engine, 3)
    buffer = io.BytesIO()
    torch.save(engine.state_dict(), buffer)
    resumed = engine_for(second, **settings)
    resumed.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    steps(second, resumed, 3)
    assert torch.equal(weights(second), weights(whole))
    assert resumed.state_dict()["steps_done"] == 6


def halves(*numbers: float) -> Numbers:
    model = Numbers(*numbers)
    model.to(torch.bfloat16)
    return model


def test_steps_too_small_for_bfloat16_add_up_in_the_masters() -> None:
    """2^-12 a step from 1, where bfloat16 has 2^-8 above and 2^-9 below: one step changes no weight, 32 of them change two
    in the way that float32 goes, to its rounding."""
    half, full = halves(1.0), Numbers(1.0).to(torch.float32)
    engines = [engine_for(model, lr=2**-12, steps=1000, max_grad_norm=1e9) for model in (half, full)]
    for number in range(32):
        for engine, model in zip(engines, (half, full), strict=True):
            step(engine, [0.0], lambda target, model=model: model.x.float().square().sum())
        assert number or half.x.item() == 1.0
    assert full.x.item() == pytest.approx(1 - 32 * 2**-12, abs=1e-4)
    assert half.x.item() == full.x.bfloat16().item() != 1.0


def test_micro_batches_of_bfloat16_add_up_in_float32() -> None:
    """A gradient of 1 and 256 of 2^-9: a sum in bfloat16 would stay at 1."""
    model = halves(0.0)
    engine = engine_for(model, max_grad_norm=1e9)
    norm = step(engine, [1.0, *[2.0**-9] * 256], lambda slope: slope * model.x.sum())
    assert norm == 1.5
    assert model.x.grad is None


def test_an_engine_in_bfloat16_goes_on_where_it_stopped_and_takes_weights_as_they_are() -> None:
    def steps(engine: Any, model: Numbers, count: int) -> None:
        for _ in range(count):
            step(engine, [0.5, 3.0], lambda target: parabola(model, target))

    whole, first, second = (halves(1.0, 2.0) for _ in range(3))
    done = engine_for(whole)
    steps(done, whole, 6)
    stopped, resumed = engine_for(first), engine_for(second)
    steps(stopped, first, 3)
    resumed.load_state_dict(stopped.state_dict())
    steps(resumed, second, 3)
    assert torch.equal(weights(second), weights(whole))
    assert torch.equal(learned(resumed), learned(done))
    resumed.load_weights({"x": torch.tensor([5.0, 6.0], dtype=torch.bfloat16)})
    assert learned(resumed).tolist() == [5.0, 6.0]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_recomputing_activations_keeps_fewer_and_gives_the_same_bits(architecture: str) -> None:
    """In a step alone: a pass without one keeps its cache."""
    kept, moved, norms = [], [], []
    examples = random_examples(6, longest=40)
    for wanted in (False, True):
        model = make_policy(architecture, num_hidden_layers=6)
        engine = make_engine(model, 1e-2, 0.0, 2, optimizer(), engine_settings(gradient_checkpointing=wanted))

        def loss_of(batch: Batch, model: Any = model) -> Tensor:
            saved: dict[int, int] = {}

            def note(tensor: Tensor) -> Tensor:
                saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                loss = -response_logprobs(model, batch).sum()
            kept.append(sum(saved.values()))
            return loss

        norms.append([step(engine, [collate(examples, PAD)], loss_of) for _ in range(2)])
        moved.append(weights(model))
        assert not model.training
        assert model(input_ids=torch.tensor([[5, 6, 7]]), use_cache=True).past_key_values.get_seq_length() == 3
    assert norms[0] == norms[1]
    assert torch.equal(*moved)
    assert kept[2] < 0.5 * kept[0]


def test_eight_bits_are_refused_where_there_is_no_gpu() -> None:
    with pytest.raises(UserError, match=r"optimizer\.bits \(8\) needs a GPU"):
        engine_for(Numbers(1.0), bits=8)


STAGES = ("0", "1", "2", "3")


@pytest.fixture(scope="module")
def deepspeed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All stages in one process of their own, with nothing said of ranks and ports, and a private place for extensions."""
    extensions = tmp_path_factory.mktemp("extensions")
    spoken_of = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "DS_ACCELERATOR")
    environment = {name: value for name, value in os.environ.items() if name not in spoken_of}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.runtime.deepspeed_run", *STAGES],
        cwd=ROOT,
        env=environment | {"TORCH_EXTENSIONS_DIR": str(extensions), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(extensions.iterdir()), "DeepSpeed began to build an extension"
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    return dict(json.loads(line.removeprefix("FOUND ")))


def assert_same_rows(found: dict[str, Any], tolerance: float) -> None:
    expected, rows = found["rows"]
    assert [row.keys() for row in rows] == [row.keys() for row in expected]
    for ours, theirs in zip(rows, expected, strict=True):
        for name, value in theirs.items():
            assert_near(ours[name], value, tolerance)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_deepspeed_trains_as_torch_does(deepspeed: dict[str, Any], stage: str, architecture: str) -> None:
    found = deepspeed[stage][architecture]
    assert_same_rows(found, 1e-5)
    assert found["weights"] < 1e-6


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_deepspeed_goes_on_where_it_stopped_and_saves_whole_weights(
    deepspeed: dict[str, Any], stage: str, architecture: str
) -> None:
    assert deepspeed[stage][architecture]["resumed"] == 0.0
    assert deepspeed[stage][architecture]["saved"] == 0.0


@pytest.mark.parametrize("stage", STAGES)
def test_deepspeed_refuses_a_step_that_is_not_finite(deepspeed: dict[str, Any], stage: str) -> None:
    assert deepspeed[stage]["refuses_nan"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("critic", ["separate", "shared"])
def test_ppo_runs_on_deepspeed_with_one_engine_and_with_two(deepspeed: dict[str, Any], stage: str, critic: str) -> None:
    assert_same_rows(deepspeed[stage][critic], 1e-3)
    assert deepspeed[stage][critic]["weights"] < 1e-4
