"""What a process knows of itself."""

from __future__ import annotations

import sys

import pytest

from rlhf.runtime.processes import forget_peak, peak_gib

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
