"""A template is a text with {slots}: filled, it writes a sentence; as a pattern, it reads one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rlhf.data.words import split_words

SLOT = re.compile(r"\{([^{} ]+)\}")


@dataclass(frozen=True)
class Template:
    """`ranges` holds every value a slot of the text may take; the pattern reads these values and no others."""

    text: str
    ranges: Mapping[str, Sequence[str]]

    @cached_property
    def slots(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(SLOT.findall(self.text)))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        seen: set[str] = set()
        return re.compile("".join(self._piece(piece, seen) for piece in re.split(r"(\{[^{} ]+\})", self.text)))

    def _piece(self, piece: str, seen: set[str]) -> str:
        if not SLOT.fullmatch(piece):
            return re.escape(piece)
        slot = piece[1:-1]
        if slot in seen:
            return f"(?P={slot})"
        seen.add(slot)
        # the longest value first, so that a value that begins another one does not hide it
        values = sorted(self.ranges[slot], key=lambda value: (-len(value), value))
        return f"(?P<{slot}>{'|'.join(map(re.escape, values))})"

    def fill(self, values: Mapping[str, str]) -> str:
        return SLOT.sub(lambda match: values[match[1]], self.text)

    def read(self, text: str) -> dict[str, str] | None:
        """The slots' values in `text`, or None where it is another sentence."""
        match = self.pattern.fullmatch(text)
        return None if match is None else match.groupdict()

    @property
    def most_words(self) -> int:
        """Words of the longest text this template writes."""
        longest = {slot: max(self.ranges[slot], key=lambda value: len(split_words(value))) for slot in self.slots}
        return len(split_words(self.fill(longest)))


def templates(texts: Sequence[str], ranges: Mapping[str, Sequence[str]]) -> tuple[Template, ...]:
    return tuple(Template(text, ranges) for text in texts)
