"""From what texts are worth to ranks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import log

from rlhf.records import Messages, messages_to_row


def ranks_by(values: Sequence[float]) -> tuple[int, ...]:
    """0 for the highest value, 1 for the next distinct one, and so on."""
    place = {value: rank for rank, value in enumerate(sorted(set(values), reverse=True))}
    return tuple(place[value] for value in values)


def noisy_ranks(
    prompt: Messages, texts: Sequence[str], worth: Mapping[str, float], temperature: float, seed: int
) -> tuple[int, ...]:
    """A draw from Plackett and Luce's model: ranks by worth / temperature plus Gumbel noise; identical texts tie.

    The noise is a function of (seed, prompt, text) alone.
    """
    noisy = {text: worth[text] / temperature + _gumbel(seed, prompt, text) for text in texts}
    return ranks_by([noisy[text] for text in texts])


def hashed_uniform(seed: int, prompt: Messages, text: str) -> float:
    """A number between 0 and 1, from 52 bits of a hash."""
    name = json.dumps([seed, messages_to_row(prompt), text]).encode()
    return (int.from_bytes(hashlib.sha256(name).digest()[:8], "big") // 2**12 + 0.5) / 2**52


def _gumbel(seed: int, prompt: Messages, text: str) -> float:
    """A draw from the standard Gumbel distribution."""
    return -log(-log(hashed_uniform(seed, prompt, text)))
