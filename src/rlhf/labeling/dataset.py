"""The preferences that came with the data, as rankings: a person's choice between two responses is K = 2."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf.records import WRITER, Preference, Ranking, Response


def label_dataset(preferences: Sequence[Preference]) -> list[Ranking]:
    """A ranking a preference, labelled by whom the preference was; identical texts tie."""
    return [
        Ranking(
            prompt=given.prompt,
            responses=(
                Response(given.chosen, given.chosen_ended, WRITER),
                Response(given.rejected, given.rejected_ended, WRITER),
            ),
            ranks=(0, 0) if given.chosen == given.rejected else (0, 1),
            split=given.split,
            labeler=given.labeler,
            settings=given.settings,
            margin=given.margin,
        )
        for given in preferences
    ]
