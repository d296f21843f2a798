"""Shows how far a loop is and when it will end: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rlhf.runtime import processes

SECONDS_BETWEEN_LINES = 5.0
SHOWN_NUMBERS = 3

Row = dict[str, float]


def show(rows: Iterable[Row], total: int, name: str, done: int = 0) -> Iterator[Row]:
    """Passes the rows on; `step` of each is what is done out of `total`, `done` steps of it at another time."""
    return _bar(rows, total, name, done) if sys.stderr.isatty() else _lines(rows, total, name, done)


def _bar(rows: Iterable[Row], total: int, name: str, done: int) -> Iterator[Row]:
    from tqdm import tqdm

    with tqdm(total=total, initial=done, desc=name, unit="step", dynamic_ncols=True) as bar:
        for row in rows:
            bar.set_postfix_str(main_numbers(row), refresh=False)
            bar.update(int(row["step"]) - bar.n)
            yield row


def _lines(rows: Iterable[Row], total: int, name: str, done: int) -> Iterator[Row]:
    start = last = time.monotonic()
    for row in rows:
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or row["step"] >= total:
            processes.tell(line(row, total, name, now - start, done))
            last = now
        yield row


def line(row: Mapping[str, Any], total: int, name: str, elapsed: float, done: int = 0) -> str:
    """`ppo 12/40 (30 %), 0:35 gone, 1:21 to go: score 1.23, kl 0.5`; elapsed in seconds, since step `done`."""
    step = int(row["step"])
    made = step - done
    left = elapsed / made * max(total - step, 0) if made else 0.0
    times = f"{clock(elapsed)} gone, {clock(left)} to go" if made else f"{clock(elapsed)} gone"
    return f"{name} {step}/{total} ({step / max(total, 1):.0%}), {times}: {main_numbers(row)}"


def main_numbers(row: Mapping[str, Any]) -> str:
    shown = [f"{key} {value:.4g}" for key, value in row.items() if key != "step" and isinstance(value, int | float)]
    return ", ".join(shown[:SHOWN_NUMBERS])


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
