"""The loops on a GPU, where there is one: they run, with deterministic kernels only, and say the same twice."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice

import pytest
import torch

from rlhf.models.batching import Batching
from rlhf.runtime import device
from rlhf.training.loop import LoopState, Passes
from rlhf.training.ppo import train_ppo
from rlhf.training.ppo_setup import make_state
from rlhf.training.sft import train_sft
from tests.models.tiny_models import PAD, ends_often, make_classifier, make_policy, random_examples
from tests.training.table import SHARED, TOKENS, all_settings, engine_for, environment_for, ppo_settings, weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the loops ran on the CPU only")


@pytest.fixture(autouse=True)
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads = torch.get_num_threads()
    device.pin(1)
    yield
    torch.set_deterministic_debug_mode("default")
    torch.set_num_threads(threads)


def supervised() -> tuple[list[dict[str, float]], torch.Tensor]:
    policy = make_policy("llama", seed=0).to("cuda")
    rows = train_sft(
        LoopState(engine_for(policy)),
        random_examples(8, seed=1),
        random_examples(4, seed=2),
        Passes(epochs=1, rows_per_step=4, eval_every_steps=1, seed=0),
        Batching(PAD, TOKENS),
    )
    return list(rows), weights(policy)


def reinforced(**changes: object) -> tuple[list[dict[str, float]], torch.Tensor]:
    ppo = ppo_settings(**changes)
    policy, reward_model = ends_often(make_policy("llama", seed=0)).to("cuda"), make_classifier("llama", seed=1).to("cuda")
    environment = environment_for(policy, reward_model)
    state = make_state(all_settings(ppo), policy, reward_model)
    return list(train_ppo(state, environment, ppo)), weights(policy)


def test_supervised_learning_says_the_same_twice() -> None:
    (rows, learned), (again, relearned) = supervised(), supervised()
    assert rows == again
    assert torch.equal(learned, relearned)


def test_a_state_from_the_gpu_goes_on_there_to_the_same_bits() -> None:
    """It is saved and read on the CPU."""
    passes = Passes(epochs=2, rows_per_step=4, eval_every_steps=1, seed=0)

    def learning(state: LoopState) -> Iterator[dict[str, float]]:
        return train_sft(state, random_examples(8, seed=1), random_examples(4, seed=2), passes, Batching(PAD, TOKENS))

    whole, stopped, again = (LoopState(engine_for(make_policy("llama", seed=0).to("cuda"))) for _ in range(3))
    expected = list(learning(whole))
    before = list(islice(learning(stopped), 2))
    buffer = io.BytesIO()
    torch.save(stopped.state_dict(), buffer)
    again.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True, map_location="cpu"))
    assert before + list(learning(again)) == expected
    assert torch.equal(weights(again.engine.model), weights(whole.engine.model))


@pytest.mark.parametrize("critic", [{}, SHARED])
def test_ppo_says_the_same_twice(critic: dict[str, object]) -> None:
    (rows, learned), (again, relearned) = reinforced(**critic), reinforced(**critic)
    assert rows == again
    assert torch.equal(learned, relearned)
