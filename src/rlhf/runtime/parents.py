"""Whose end is this process's end: DVC's, torchrun's, or that of the one that launched it for the jobs of its sweep."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from rlhf.runtime.processes import Terminated, terminate

PR_SET_PDEATHSIG = 1  # linux/prctl.h
STARTED = {"DVC_STAGE", "TORCHELASTIC_RUN_ID"}  # by DVC, or by torchrun
STARTERS = (b"dvc", b"torchrun", b"torch.distributed.run", b"rlhf.runtime.launch")  # in their command lines
SHELLS = {"ash", "bash", "busybox", "dash", "fish", "ksh", "sh", "zsh"}
SECONDS_BETWEEN_LOOKS = 0.5

_busy = threading.Event()  # with a job of a sweep


def _above() -> tuple[int, ...]:
    """The parent's pid; on Linux, while that is a shell, which may wait for its command (Debian's does, for DVC) and knows
    nothing of the end of its own parent, that one's as well."""
    pids = [os.getppid()]
    with contextlib.suppress(OSError):  # it has just ended
        while sys.platform == "linux" and pids[-1] > 1:
            name, _, rest = Path(f"/proc/{pids[-1]}/stat").read_text().partition("(")[2].rpartition(")")
            if name not in SHELLS:
                break
            pids.append(int(rest.split()[1]))
    return tuple(pids)


ABOVE = _above()


def end_with_parent() -> None:
    """SIGTERM becomes an exception; under DVC or torchrun on Linux it comes when they die, however it happens."""
    signal.signal(signal.SIGTERM, terminate)
    if STARTED & os.environ.keys() and sys.platform == "linux":
        end_when_parent_does()
        if len(ABOVE) > 1:
            threading.Thread(target=_end_when_orphaned, daemon=True).start()
        if _is_adopted():  # DVC died while the stage was importing
            raise Terminated


def end_when_parent_does() -> None:
    """For a child just before it becomes another program: on Linux it gets SIGTERM when its parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_when_orphaned() -> None:
    while _above() == ABOVE:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)


def leave_if_orphaned() -> None:
    """Ends what DVC or torchrun has started when that is gone: who goes on must not find a second writer."""
    if is_orphaned():
        raise Terminated


def is_orphaned() -> bool:
    """Whether DVC or torchrun, which has started this, is gone."""
    return bool(STARTED & os.environ.keys()) and _above() != ABOVE


def _is_adopted() -> bool:
    """Whether who started this is by now the process that takes in orphans: the first of all, or the user's systemd."""
    starter = Path("/proc") / str(ABOVE[-1])
    with contextlib.suppress(OSError):  # it has just ended, or is outside of this container
        if starter.name == "1":
            first = (starter / "cmdline").read_bytes()  # in a container who started this may be the first
            return not any(name in first for name in STARTERS)
        return (starter / "comm").read_text().strip() == "systemd"
    return False


@contextlib.contextmanager
def for_launcher() -> Iterator[None]:
    """Around a job of a sweep in a process that another one has launched: ends with that one, and not before its books are
    closed. A process that waits for its next job ends with it, too, instead of keeping its memory."""
    if _above() != ABOVE:  # a job that was waiting for this process begins after the launcher's end
        raise Terminated
    signal.signal(signal.SIGTERM, terminate)
    _watch_launcher()
    _busy.set()
    try:
        yield
    finally:
        _busy.clear()


@functools.cache
def _watch_launcher() -> None:
    threading.Thread(target=_leave_launcher, daemon=True).start()


def _leave_launcher() -> None:
    while _above() == ABOVE:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if _busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
    while _busy.is_set():
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(128 + signal.SIGTERM)
