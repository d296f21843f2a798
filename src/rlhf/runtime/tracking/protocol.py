"""What a stage and the writer of its runs say to each other, and both to the user: one warning."""

from __future__ import annotations

import sys
from typing import Any

Message = dict[str, Any]

# What the stage sends, by `kind`, one JSON object a line. A run lies between OPEN and CLOSE.
WARM = "warm"  # between two runs: one will be opened before long
OPEN, CLOSE = "open", "close"
TAGS, METRICS, FILE, MODEL, CHILDREN = "tags", "metrics", "file", "model", "children"

# What the writer answers, each at the start of a line.
READY = "ready"  # MLflow is imported, and its store has answered
OPENED = "run "  # and the id of the run
WARNED = "warned"  # the user has been told
CLOSED = "closed"  # the run is, with all that was to be written: the next one may come

REMOTE_PATIENCE = 5.0  # seconds that a server which does not answer may cost a stage, all in all
REASON_LENGTH = 300


def warn(uri: str, reason: str, opened: bool = False) -> None:
    """One line, without what could be a password in the address; `opened` where MLflow has the run, if not all of it."""
    scheme, _, rest = uri.partition("://")
    secret, at, place = rest.rpartition("@")
    reason = reason.replace(secret + at, "")[:REASON_LENGTH]
    lost = "not all is in" if opened else "no"
    text = f"warning: {lost} MLflow at {scheme}://{place} ({reason}); the run goes on without it"
    print(text, file=sys.stderr, flush=True)
