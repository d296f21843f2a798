"""What a process knows of itself."""

from __future__ import annotations

import os
import sys

import pytest

from rlhf.runtime.processes import forget_peak, keep_offline, peak_gib

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a peak begin anew")
def test_the_peak_of_memory_is_that_since_it_was_forgotten() -> None:
    forget_peak()
    before = peak_gib()
    held = b"x" * (512 * MIB)
    during = peak_gib()
    assert during > before + 0.4, "what was held counts, in GiB"
    del held
    assert peak_gib() == pytest.approx(during, abs=0.01), "the kernel counts by pages and threads"
    forget_peak()
    assert peak_gib() < during - 0.4


@pytest.mark.parametrize(("reaches_hub", "offline"), [(True, None), (False, "1")])
def test_only_what_comes_from_the_hub_lets_a_process_reach_it(
    monkeypatch: pytest.MonkeyPatch, reaches_hub: bool, offline: str | None
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    keep_offline(reaches_hub)
    assert os.environ.get("HF_HUB_OFFLINE") == os.environ.get("TRANSFORMERS_OFFLINE") == offline
    assert (offline == "1") is constants.HF_HUB_OFFLINE
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
