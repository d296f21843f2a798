"""A reward model as labeler: orders responses by the scores of a sequence classifier with one label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf.labeling.order import noisy_ranks, ranks_by
from rlhf.models.grading import grade
from rlhf.records import Ranking, Responses
from rlhf.runtime.run import Run

LABELER = "reward_model"


def label_by_reward_model(run: Run, responses: Sequence[Responses]) -> tuple[list[Ranking], dict[str, Any]]:
    """A ranking a prompt, and what there is to say of the scores; identical texts tie.

    With a temperature above 0, in units of the scores, labels err as Bradley-Terry has it (SPEC eq. 1), as the gold
    rater's do.
    """
    labeler = run.config.labeler
    asked = [(drawn.prompt, response) for drawn in responses for response in drawn.responses]
    run.say(f"has {len(asked)} responses scored")
    graded = grade(labeler.path, run.device, run.config.engine, asked)
    scores = iter(graded.scores)
    worth = [{response.text: next(scores) for response in drawn.responses} for drawn in responses]
    seed = run.seed("labels")
    settings: dict[str, Any] = {"model": Path(labeler.path).name, "temperature": labeler.temperature}
    settings |= {"seed": seed} if labeler.temperature else {}
    rankings = [
        Ranking(drawn.prompt, drawn.responses, _order(drawn, of, labeler.temperature, seed), drawn.split, LABELER, settings)
        for drawn, of in zip(responses, worth, strict=True)
    ]
    mean = sum(graded.scores) / len(graded.scores) if graded.scores else 0.0
    return rankings, {"reward_model": {"mean_score": mean, "truncated": graded.truncated}}


def _order(drawn: Responses, worth: Mapping[str, float], temperature: float, seed: int) -> tuple[int, ...]:
    texts = [response.text for response in drawn.responses]
    return noisy_ranks(drawn.prompt, texts, worth, temperature, seed) if temperature else ranks_by([worth[t] for t in texts])
