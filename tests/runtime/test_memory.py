"""What a frozen model said is found again by content: the same bits for the same question, and never those of another."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlhf.models.batching import Batching
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


def says(answers: Iterator[float], examples: Sequence[Example], batching: Batching) -> Tensor:
    value = next(answers)
    return torch.tensor([value / 3, -value / 7], dtype=torch.float64)


def says_otherwise(answers: Iterator[float], examples: Sequence[Example], batching: Batching) -> Tensor:
    return -says(answers, examples, batching)


def once(value: float) -> partial[Tensor]:
    """Numbers that float32 does not hold; asked a second time it fails."""
    return partial(says, iter([value]))


def test_the_same_question_is_asked_once_and_answered_bit_for_bit(said: Memory) -> None:
    ask = once(1.0)
    first = said.recall(ask, EXAMPLES, BATCHING)
    again = said.recall(ask, list(EXAMPLES), Batching(0, 100))
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
    said.recall(once(1.0), EXAMPLES, BATCHING)
    assert said.recall(once(2.0), examples, batching).tolist() == [2 / 3, -2 / 7]
    assert said.recall(once(3.0), EXAMPLES, BATCHING).tolist() == [1 / 3, -1 / 7]


def test_another_kind_of_question_is_another_question(said: Memory) -> None:
    said.recall(once(1.0), EXAMPLES, BATCHING)
    assert said.recall(partial(says_otherwise, iter([2.0])), EXAMPLES, BATCHING).tolist() == [-2 / 3, 2 / 7]


def test_another_model_precision_machine_or_library_is_another_origin(
    tmp_path: Path, model: Path, said: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    origins = {said.origin}
    for changes in ({"dtype": "bfloat16"}, {"threads": 2}):
        origins.add(memory_of(tmp_path, model, CPU, engine_settings(**changes)).origin)
    with monkeypatch.context() as changed:
        changed.setattr(memory, "version", lambda name: "0")
        origins.add(memory_of(tmp_path, model, CPU, engine_settings()).origin)
    with monkeypatch.context() as changed:
        changed.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
        origins.add(memory_of(tmp_path, model, CPU, engine_settings()).origin)
        for gpu in ("one", "two"):
            changed.setattr(torch.cuda, "get_device_name", lambda device, gpu=gpu: gpu)
            origins.add(memory_of(tmp_path, model, torch.device("cuda"), engine_settings()).origin)
    (model / "model.safetensors").write_bytes(b"Weights")
    origins.add(memory_of(tmp_path, model, CPU, engine_settings()).origin)
    assert len(origins) == 8
    (model / "model.safetensors").write_bytes(b"weights")
    assert memory_of(tmp_path / "elsewhere", model, CPU, engine_settings()).origin == said.origin


@pytest.mark.parametrize("file", ["models/forward.py", "models/precision.py", "runtime/device.py"])
def test_other_code_is_another_origin(
    tmp_path: Path, model: Path, said: Memory, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(memory.PACKAGE, tmp_path / "rlhf")
    monkeypatch.setattr(memory, "PACKAGE", copy)
    assert memory_of(tmp_path, model, CPU, engine_settings()).origin == said.origin
    (copy / file).write_text("x = 1\n")
    assert memory_of(tmp_path, model, CPU, engine_settings()).origin != said.origin


@pytest.mark.parametrize("size", [0, 5, 40])
def test_half_a_file_is_none(said: Memory, size: int) -> None:
    said.recall(once(1.0), EXAMPLES, BATCHING)
    (file,) = said.folder.iterdir()
    file.write_bytes(file.read_bytes()[:size])
    for _ in range(2):
        assert said.recall(once(2.0), EXAMPLES, BATCHING).tolist() == [2 / 3, -2 / 7]
    assert [path.name for path in said.folder.iterdir()] == [file.name]
