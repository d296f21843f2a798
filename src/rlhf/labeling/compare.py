"""How far two labelers agree about the same responses: python -m rlhf.labeling.compare LABELS OTHERS

LABELS and OTHERS are what `label` left: its folder, or the rankings.jsonl in it. The same responses under another labeler:

    python stages/label.py labeler=reward_model labeler.path=DIR hydra.run.dir=runs/label/other
    python -m rlhf.labeling.compare artifacts/label runs/label/other
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rlhf.data.files import read_records
from rlhf.errors import UserError
from rlhf.labeling.agreement import concordance
from rlhf.records import Messages, Ranking
from rlhf.runtime.processes import attempt

RANKINGS = "rankings.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m rlhf.labeling.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels", type=Path, metavar="LABELS", help="a folder of `label`, or its rankings.jsonl")
    parser.add_argument("others", type=Path, metavar="OTHERS", help="the same of another labeler")
    asked = parser.parse_args(arguments)
    ours, theirs = (rankings_of(place) for place in (asked.labels, asked.others))
    both = in_common(ours, theirs)
    if not both:
        raise UserError(f"{asked.labels} and {asked.others} have no prompt with the same responses: label one sample twice")
    found = concordance([mine for mine, _ in both], [ranks for _, ranks in both])
    print(f"{labelers(ours)} ({len(ours)} prompts) beside {labelers(theirs)} ({len(theirs)}): {len(both)} in common")
    print(f"  {'pairs':13} {found['pairs']:6.0f}\n  {'ordered_pairs':13} {found['ordered_pairs']:6.0f}   by both of them")
    if "agreement" in found:
        print(f"  {'agreement':13} {found['agreement']:6.3f}   of the ordered pairs")
    if "kappa" in found:
        print(f"  {'kappa':13} {found['kappa']:6.3f}   Cohen's, of this one, that one and a tie")
    return 0


def rankings_of(place: Path) -> list[Ranking]:
    """UserError where there are none."""
    file = place / RANKINGS if place.is_dir() else place
    if not file.is_file():
        raise UserError(f"{file} is missing: name a folder that stages/label.py has left, or the {RANKINGS} in it")
    return read_records(file, Ranking)


def in_common(ours: Sequence[Ranking], theirs: Sequence[Ranking]) -> list[tuple[Ranking, list[int]]]:
    """Our rankings whose prompt and texts theirs have too, each with their ranks, in the order of our responses."""
    known: dict[tuple[Messages, frozenset[str]], dict[str, int]] = {}
    for ranking in theirs:
        ranks = {response.text: rank for response, rank in zip(ranking.responses, ranking.ranks, strict=True)}
        known[ranking.prompt, frozenset(ranks)] = ranks
    found = []
    for ranking in ours:
        texts = [response.text for response in ranking.responses]
        if there := known.get((ranking.prompt, frozenset(texts))):
            found.append((ranking, [there[text] for text in texts]))
    return found


def labelers(rankings: Sequence[Ranking]) -> str:
    return ", ".join(sorted({ranking.labeler for ranking in rankings})) or "nobody"


if __name__ == "__main__":
    sys.exit(attempt("compare", main))
