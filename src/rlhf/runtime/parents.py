"""Whose end is this process's end: DVC's, torchrun's, or that of the one that launched it for the jobs of its sweep."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from rlhf.runtime.processes import hear_sigterm, tell, terminate, was_asked

PR_SET_PDEATHSIG = 1  # linux/prctl.h
STARTER_VARIABLES = {"DVC_STAGE", "TORCHELASTIC_RUN_ID"}  # set by DVC, and by torchrun
SHELLS = {"ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "ksh93", "mksh", "sh", "tcsh", "yash", "zsh"}
SECONDS_BETWEEN_LOOKS = 0.5

_busy = threading.Event()  # with a job of a sweep


def _ancestors() -> tuple[int, ...]:
    """The parent's pid; on Linux, while that is a shell, its own parent's as well. A shell may wait for its command, as
    Debian's sh does for DVC, and knows nothing of its parent's end."""
    pids = [os.getppid()]
    while sys.platform == "linux" and _program(pids[-1]) in SHELLS and (above := _parent_of(pids[-1])):
        pids.append(above)
    return tuple(pids)


def _program(pid: int) -> str:
    """The name of the file that a process runs, which for a script is its shell's; empty where that is not for us to see."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)")
    except OSError:  # it is somebody else's, or has just ended
        return ""


def _parent_of(pid: int) -> int | None:
    """The pid of a process's parent; None where the process is no more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(b")")[2].split()[1])


ANCESTORS = _ancestors()


def end_with_parent() -> None:
    """SIGTERM becomes an exception; under DVC or torchrun on Linux it comes when they die, however it happens."""
    hear_sigterm()
    if STARTER_VARIABLES & os.environ.keys() and sys.platform == "linux":
        end_when_parent_does()
        if len(ANCESTORS) > 1:
            threading.Thread(target=_end_when_orphaned, daemon=True).start()
        if is_orphaned() or _is_reparented():
            tell("DVC or torchrun, which has started this, was gone before it began", sys.stderr)
            terminate()


def end_when_parent_does() -> None:
    """For a child just before it becomes another program: on Linux it gets SIGTERM when its parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_when_orphaned() -> None:
    while not is_orphaned():
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if not was_asked():
        os.kill(os.getpid(), signal.SIGTERM)


def leave_if_orphaned() -> None:
    """Ends what DVC or torchrun has started when that is gone: who goes on must not find a second writer."""
    if is_orphaned():
        terminate()


def is_orphaned() -> bool:
    """Whether DVC or torchrun, which has started this, is gone."""
    if not STARTER_VARIABLES & os.environ.keys():
        return False
    if os.getppid() != ANCESTORS[0]:
        return True
    with contextlib.suppress(OSError):  # no more files can be opened, which says nothing of them
        return any(_parent_of(pid) != above for pid, above in itertools.pairwise(ANCESTORS))
    return False


def _is_reparented() -> bool:
    """Whether this process, when it was imported, had already been taken over by one that takes in orphans: the user's
    systemd, or the first of all, unless that is the program, in a container, which has started this."""
    top = ANCESTORS[-1]
    with contextlib.suppress(OSError):  # it has just ended
        if Path(f"/proc/{top}/comm").read_bytes() == b"systemd\n":
            return True
    return top == 1 and not _program(top).startswith(("python", "pypy", "dvc"))


@contextlib.contextmanager
def for_launcher() -> Iterator[None]:
    """Around a job of a sweep in a process that another one has launched: ends with that one, and not before its books are
    closed. A process that waits for its next job ends with it, too, instead of keeping its memory."""
    if os.getppid() != ANCESTORS[0]:  # a job that was waiting for this process begins after the launcher's end
        terminate()
    hear_sigterm()
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
    while os.getppid() == ANCESTORS[0]:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if _busy.is_set() and not was_asked():
        os.kill(os.getpid(), signal.SIGTERM)
    while _busy.is_set():
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(128 + signal.SIGTERM)
