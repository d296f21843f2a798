"""The preferences that came with the data, as rankings: a person's choice between two responses is K = 2.

They are labels, or what other labels are held against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rlhf.labeling.agreement import concordance
from rlhf.records import WRITER, Preference, Ranking, Response, Responses
from rlhf.runtime.run import Run


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


def label_beside(
    run: Run,
    label: Callable[[Run, Sequence[Responses]], tuple[list[Ranking], dict[str, Any]]],
    responses: Sequence[Responses],
    known: Sequence[Ranking],
) -> tuple[list[Ranking], dict[str, Any]]:
    """What a labeler makes of the responses; and with `dataset` among its figures how far it agrees with rankings that are
    known already, about whose responses it is asked as well."""
    asked = [Responses(ranking.prompt, ranking.responses, ranking.split) for ranking in known]
    rankings, figures = label(run, [*responses, *asked])
    if known:
        figures |= {"dataset": concordance(rankings[len(responses) :], [ranking.ranks for ranking in known])}
    return rankings[: len(responses)], figures
