"""Where a stage computes."""

from __future__ import annotations

import pytest
import torch

from rlhf.errors import UserError
from rlhf.runtime import device


@pytest.mark.parametrize(
    ("choice", "source", "gpu", "expected"),
    [
        ("auto", "world", True, "cpu"),
        ("auto", "world", False, "cpu"),
        ("auto", "files", True, "cuda"),
        ("auto", "hh_rlhf", False, "cpu"),
        ("cuda", "world", True, "cuda"),
        ("cpu", "files", True, "cpu"),
    ],
)
def test_auto_is_the_gpu_except_for_the_world(
    monkeypatch: pytest.MonkeyPatch, choice: str, source: str, gpu: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert device.choose_device(choice, source) == torch.device(expected)


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a GPU"):
        device.choose_device("cuda", "files")


def test_the_choice_is_auto_unless_said_and_one_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLHF_DEVICE", raising=False)
    assert device.device_choice() == "auto"
    monkeypatch.setenv("RLHF_DEVICE", "gpu")
    with pytest.raises(UserError, match=r"RLHF_DEVICE \(gpu\) must be one of auto, cpu, cuda"):
        device.device_choice()
