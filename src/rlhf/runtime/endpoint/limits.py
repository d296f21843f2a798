"""How fast a server is asked, and how much of it one run may use; both are shared by threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rlhf.errors import UserError


@dataclass(slots=True)
class Pace:
    """So many requests a minute (0: no limit), evenly spread; none while the server asks to be left alone."""

    per_minute: int
    clock: Callable[[], float] = time.monotonic
    free_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def turn(self) -> float:
        """Takes the next turn, and says in how many seconds it is."""
        with self.lock:
            now = self.clock()
            begins = max(now, self.free_at)
            self.free_at = begins + (60 / self.per_minute if self.per_minute else 0.0)
            return begins - now

    def hold(self, seconds: float) -> None:
        """Lets nobody begin for so many seconds from now."""
        with self.lock:
            self.free_at = max(self.free_at, self.clock() + seconds)


@dataclass(slots=True)
class Budget:
    """What a run has used of a server and what it may use: requests, and tokens read and written (0: no limit)."""

    most_requests: int
    most_tokens: int
    requests: int = 0
    retries: int = 0
    tokens: int = 0
    reserved: int = 0  # tokens that requests under way may cost at most
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, most: int, again: bool) -> None:
        """Reserves a request of at most so many tokens; UserError where it could go beyond the budget."""
        with self.lock:
            if self.most_requests and self.requests >= self.most_requests:
                raise UserError(f"endpoint.most_requests ({self.most_requests}) are used up")
            if self.most_tokens and self.tokens + self.reserved + most > self.most_tokens:
                raise UserError(
                    f"endpoint.most_tokens ({self.most_tokens}) could be exceeded by the next request ({self.tokens} are "
                    f"used, {self.reserved} may be by requests under way, and it takes up to {most})"
                )
            self.requests += 1
            self.retries += again
            self.reserved += most

    def end(self, most: int, used: int) -> None:
        """Settles a request that was begun."""
        with self.lock:
            self.reserved -= most
            self.tokens += used
