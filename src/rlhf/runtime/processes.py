"""How a process is ended and says so, what memory it took, and what it may reach."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from rlhf.errors import UserError

SECONDS_FOR_THE_FIRST = 3.0  # of all processes, to say what is wrong
SECONDS_FOR_BOOKS = 120.0  # to close them, where all processes stop together
SECONDS_OF_ONE_ASKING = 2.0  # in which a signal may come twice: from a terminal or SLURM, and by way of a launcher
TOGETHER = "with all processes"  # what an exception says that all of them raise

_stops: list[Stop] = []  # those that wait for the end of a step
_asked: list[float] = []  # when this process was asked to end


class Terminated(BaseException):
    """SIGTERM, as an exception, so that what is open gets closed."""


def hear_sigterm() -> None:
    """From now on SIGTERM raises `Terminated`."""
    _asked.clear()
    signal.signal(signal.SIGTERM, raise_terminated)


def raise_terminated(number: int, frame: FrameType | None) -> None:
    """What SIGTERM calls. Where it comes twice for one asking, as from SLURM and by the end of a parent that has heard it as
    well, what is being closed gets closed."""
    if not _asked or time.monotonic() - _asked[-1] > SECONDS_OF_ONE_ASKING:
        terminate()


def terminate() -> NoReturn:
    """Ends as by SIGTERM."""
    _asked.append(time.monotonic())
    raise Terminated


def was_asked() -> bool:
    """Whether somebody has asked this process to end."""
    return bool(_asked)


def attempt(name: str, work: Callable[[], int]) -> int:
    """The exit code of some work; says in one message what the user can mend."""
    rank = os.environ.get("RANK", "0")
    try:
        return work()
    except UserError as error:
        said = str(error)
        if rank != "0":
            _wait_for_others()  # the first mostly says the same
            name = f"{name} (process {rank})"
        tell(said if said.startswith(f"{name}: ") else f"{name}: {said}", sys.stderr)
        return 1
    except (KeyboardInterrupt, Terminated) as stopped:
        number, by = (signal.SIGINT, "Ctrl-C") if isinstance(stopped, KeyboardInterrupt) else (signal.SIGTERM, "SIGTERM")
        if rank == "0":
            tell(f"{name}: stopped by {by}", sys.stderr)
        else:
            _wait_for_others(SECONDS_FOR_BOOKS if TOGETHER in stopped.args else SECONDS_FOR_THE_FIRST)
        return 128 + number
    except BrokenPipeError:
        tell(f"{name}: stopped: nobody reads any more what it says", sys.stderr)
        return 128 + signal.SIGPIPE
    except Exception:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            _wait_for_others()  # one of them may have ended, and then says why
        traceback.print_exc()
        return 1


def _wait_for_others(seconds: float = SECONDS_FOR_THE_FIRST) -> None:
    """Before this process's end, with which torchrun ends the others; or until it ends this one, without a word."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(seconds)


def tell(what: str, file: TextIO | None = None) -> None:
    """A line on the screen, or in `file`; lost where that is on a full disk. Where nobody reads any more, as when Ctrl-C has
    ended `| tee` as well, it goes nowhere, and so do those after it; a loop that saves its state then ends after its step.

    Raises:
        BrokenPipeError: there is no such loop, and it is no last word (on stderr).
    """
    stream = file or sys.stdout
    try:
        print(what, file=stream, flush=True)
    except BrokenPipeError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        if stream is sys.stderr:
            return
        if not _stops:
            raise
        _stops[-1].ask(signal.SIGTERM)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


@dataclass
class Stop:
    """Signals that have asked to stop; since: when the first did."""

    asked: list[int] = field(default_factory=list)
    since: float = 0.0

    def ask(self, number: int) -> None:
        _asked.append(time.monotonic())
        self.since = self.since if self.asked else _asked[-1]
        self.asked.append(number)

    @property
    def is_pressed(self) -> bool:
        """Whether it was asked before, and by somebody else than who asks now."""
        return bool(self.asked) and time.monotonic() - self.since > SECONDS_OF_ONE_ASKING

    def now(self, *what: str) -> NoReturn:
        """Ends as the first of them would have ended it. what: `TOGETHER`, where every process does."""
        if self.asked[:1] == [signal.SIGINT]:
            raise KeyboardInterrupt(*what)
        if not self.asked:  # but another process was
            _asked.append(time.monotonic())
        raise Terminated(*what)


@contextlib.contextmanager
def stopped_between_steps() -> Iterator[Stop]:
    """Within it the first Ctrl-C or SIGTERM waits for the end of a step; the next one is heard at once."""
    stop = Stop()

    def note(number: int, frame: FrameType | None) -> None:
        if stop.is_pressed:
            before[number](number, frame)
        first = not stop.asked
        stop.ask(number)
        if first:
            with contextlib.suppress(RuntimeError):  # it came while something was written there
                tell(f"stops at the end of this step; asked again after {SECONDS_OF_ONE_ASKING:g} s, at once", sys.stderr)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            if callable(signal.getsignal(number)):  # a shell's background job does not hear Ctrl-C
                before[number] = signal.signal(number, note)
    _stops.append(stop)
    try:
        yield stop
    finally:
        _stops.remove(stop)
        for number, heard in before.items():
            signal.signal(number, heard)


def forget_peak() -> None:
    """Lets the peak of memory begin anew: a process may run one job of a sweep after the other. Linux only."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_gib() -> float:
    """The most memory that this process has held at once since `forget_peak`, in GiB; elsewhere than on Linux, ever."""
    with contextlib.suppress(OSError):
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**20  # from KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30  # macOS counts bytes


def keep_offline(reaches_hub: bool) -> None:
    """No telemetry; and no network but for a model or data that have to come from the hub."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    if not reaches_hub:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
        if hub := sys.modules.get("huggingface_hub.constants"):  # read the environment when it was imported
            hub.HF_HUB_OFFLINE = os.environ["HF_HUB_OFFLINE"] != "0"  # type: ignore[attr-defined]
