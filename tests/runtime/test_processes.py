"""What a process knows of itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest

from rlhf.runtime import processes
from rlhf.runtime.processes import forget_peak, keep_offline, peak_gib
from tests.runtime.launched import environment

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


def unread() -> TextIO:
    """What nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def test_where_nobody_reads_any_more_a_loop_ends_after_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", unread())
    with processes.stopped_between_steps() as stop:
        processes.tell("3/6")
        assert stop.asked == [signal.SIGTERM]
        processes.tell("4/6")
        assert len(stop.asked) == 1


def test_where_nobody_reads_any_more_what_is_no_loop_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", unread())
    with pytest.raises(BrokenPipeError):
        processes.tell("reads")


def test_without_a_reader_a_command_is_stopped_by_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", unread())
    assert processes.attempt("sample", lambda: processes.tell("reads") or 0) == 128 + signal.SIGPIPE
    assert capsys.readouterr().err == "sample: stopped: nobody reads any more what it says\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_log_on_a_full_disk_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    monkeypatch.setattr(sys, "stdout", full)
    with processes.stopped_between_steps() as stop:
        processes.tell("3/6")
    assert not stop.asked
    with contextlib.suppress(OSError):
        full.close()


WITH_AN_ERROR = """
import os, sys, torch
from rlhf.errors import UserError
from rlhf.runtime import parents, processes, ranks
def work():
    parents.end_with_parent()
    ranks.join(torch.device("cpu"))
    ranks.of_rank_0(None)
    if ranks.rank() == int(sys.argv[1]):
        raise UserError("a.yaml: b (1) must be 2")
    ranks.of_rank_0(None)
    return 0
sys.exit(processes.attempt("sft", work))
"""


@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_error_of_one_process_is_told_once_and_nothing_else(tmp_path: Path, rank: str) -> None:
    script = tmp_path / "work.py"
    script.write_text(WITH_AN_ERROR, encoding="utf-8")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "rlhf.runtime.launch",
        "--standalone",
        "--nproc_per_node=2",
        script,
        rank,
    ]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"sft{' (process 1)' if rank == '1' else ''}: a.yaml: b (1) must be 2\n"


STOPPED_TOGETHER = """
import os, signal, sys, time
from rlhf.runtime import parents, processes
def work():
    parents.end_with_parent()
    try:
        with processes.stopped_between_steps() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            stop.now(processes.TOGETHER)
    finally:
        if os.environ["RANK"] == "0":
            time.sleep(processes.SECONDS_FOR_THE_FIRST + 2)
            print("closed its books", flush=True)
    return 0
sys.exit(processes.attempt("sft", work))
"""


def test_processes_that_stop_together_wait_for_the_books_of_the_first(tmp_path: Path) -> None:
    """Torchrun ends all others as soon as one has ended."""
    script = tmp_path / "work.py"
    script.write_text(STOPPED_TOGETHER, encoding="utf-8")
    launcher = [sys.executable, "-W", "ignore", "-m", "rlhf.runtime.launch", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*launcher, script], env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.stdout == "closed its books\n"
    assert done.stderr.endswith("sft: stopped by SIGTERM\n")
    assert done.returncode == 128 + signal.SIGTERM


SLOW_TO_STOP = """
import signal, sys, time
def stop(number, frame):
    time.sleep(33)
    open(sys.argv[1], "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("there", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_launcher_waits_for_a_long_step_and_its_state(tmp_path: Path) -> None:
    """Of itself torchrun waits half a minute."""
    script = tmp_path / "work.py"
    script.write_text(SLOW_TO_STOP, encoding="utf-8")
    command = [sys.executable, "-m", "rlhf.runtime.launch", "--standalone", "--nproc_per_node=1", script, tmp_path / "saved"]
    with subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout
        assert launcher.stdout.readline() == "there\n"
        launcher.terminate()
        assert launcher.wait(60) == 128 + signal.SIGTERM
    assert (tmp_path / "saved").exists()
