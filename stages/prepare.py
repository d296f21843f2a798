"""Raw data become demonstrations, prompts, preferences and documents, split by a hash of the prompt (SPEC section 1)."""

from __future__ import annotations

import _checkout  # noqa: F401

from rlhf.runtime.stage import stage

if __name__ == "__main__":
    stage(__file__)  # leaves

import shutil
from pathlib import Path

from rlhf.data.gold import RATER, WORLD
from rlhf.data.prepared import check, counts, length_curve, write
from rlhf.data.sentiment import learn, read_reviews, write_rater
from rlhf.data.sources import prepare
from rlhf.runtime.run import Run


def main(run: Run) -> None:
    """Generates the world or reads the user's data, drops what nobody can learn from, and refuses a leak between splits."""
    config = run.config
    prepared = prepare(config.data, config.prepare, run.seed)
    check(prepared, config)
    write(prepared, run.output)
    if config.data.source == "world":
        shutil.copyfile(config.data.path, run.output / WORLD)  # its presence says that there is a gold rater
    about = {}
    if config.data.learns_rater:
        reviews = read_reviews(Path(config.data.rater))
        rater, figures = learn(reviews.found)
        about["rater"] = figures | {"ignored": reviews.ignored}
        write_rater(rater, run.output / RATER)
    run.curve(length_curve(prepared))
    run.finish(counts(prepared) | about)
    if not config.data.has_gold and not (prepared.preferences or prepared.rankings):
        print(
            "prepare: the data bring no preferences: with labeler=dataset `dvc repro sft` is as far as they go; "
            "labeler=judge and labeler=reward_model label without"
        )
