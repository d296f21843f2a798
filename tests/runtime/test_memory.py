"""What a frozen model said is found again by content: the same bits for the same question, and never those of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlhf.models.forward import Batching
from rlhf.models.tokens import Example
from rlhf.runtime import memory
from rlhf.runtime.memory import Memory, memory_of
from tests.training.table import engine_settings

EXAMPLES = [Example([1, 5], [6, 2]), Example([1], [7, 8, 2])]
BATCHING = Batching(0, 100)
CPU = torch.device("cpu")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "model"


@pytest.fixture
def said(tmp_path: Path, model: Path) -> Memory:
    return memory_of(tmp_path / "cache", model, CPU, engine_settings())


def once(value: float) -> Callable[[], Tensor]:
    """Numbers that float32 does not hold; asked a second time it fails."""
    answers = iter([torch.tensor([value / 3, -value / 7], dtype=torch.float64)])
    return lambda: next(answers)


def test_the_same_question_is_asked_once_and_answered_bit_for_bit(said: Memory) -> None:
    ask = once(1.0)
    first = said.recall(EXAMPLES, BATCHING, ask)
    again = said.recall(list(EXAMPLES), Batching(0, 100), ask)
    assert again.dtype == torch.float64
    assert torch.equal(first, again)
    assert again.tolist() == [1 / 3, -1 / 7]


@pytest.mark.parametrize(
    ("examples", "batching"),
    [
        (EXAMPLES[::-1], BATCHING),
        (EXAMPLES[:1], BATCHING),
        ([Example([1, 5, 6], [2]), EXAMPLES[1]], BATCHING),  # the same tokens, another boundary
        (EXAMPLES, replace(BATCHING, tokens_per_micro_batch=99)),
        (EXAMPLES, replace(BATCHING, pad_id=3)),
    ],
    ids=["order", "fewer", "boundary", "micro-batches", "padding"],
)
def test_another_question_gets_its_own_answer(said: Memory, examples: list[Example], batching: Batching) -> None:
    said.recall(EXAMPLES, BATCHING, once(1.0))
    assert said.recall(examples, batching, once(2.0)).tolist() == [2 / 3, -2 / 7]
    assert said.recall(EXAMPLES, BATCHING, once(3.0)).tolist() == [1 / 3, -1 / 7]


def test_another_model_precision_code_or_library_is_another_origin(
    tmp_path: Path, model: Path, said: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    origins = {said.origin}
    for changes in ({"dtype": "bfloat16"}, {"threads": 2}):
        origins.add(memory_of(tmp_path, model, CPU, engine_settings(**changes)).origin)
    with monkeypatch.context() as changed:
        changed.setattr(memory, "version", lambda name: "0")
        origins.add(memory_of(tmp_path, model, CPU, engine_settings()).origin)
    with monkeypatch.context() as changed:
        code = tmp_path / "code"
        code.mkdir()
        (code / "forward.py").write_text("x = 1\n")
        changed.setattr(memory, "CODE", code)
        origins.add(memory_of(tmp_path, model, CPU, engine_settings()).origin)
    (model / "model.safetensors").write_bytes(b"Weights")
    origins.add(memory_of(tmp_path, model, CPU, engine_settings()).origin)
    assert len(origins) == 6
    (model / "model.safetensors").write_bytes(b"weights")
    assert memory_of(tmp_path / "elsewhere", model, CPU, engine_settings()).origin == said.origin


@pytest.mark.parametrize("size", [0, 5, 40])
def test_half_a_file_is_none(said: Memory, size: int) -> None:
    said.recall(EXAMPLES, BATCHING, once(1.0))
    (file,) = said.folder.iterdir()
    file.write_bytes(file.read_bytes()[:size])
    for _ in range(2):
        assert said.recall(EXAMPLES, BATCHING, once(2.0)).tolist() == [2 / 3, -2 / 7]
    assert [path.name for path in said.folder.iterdir()] == [file.name]
