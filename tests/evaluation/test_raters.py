"""Who judges: as the setting says, by one interface, whatever the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf.config import Evaluate
from rlhf.data.scorer import load_scorer
from rlhf.data.sentiment import SentimentRater
from rlhf.data.world import World
from rlhf.errors import UserError
from rlhf.evaluation import report
from rlhf.evaluation.answers import SAMPLED, Answers
from rlhf.evaluation.contest import yardsticks_of
from rlhf.evaluation.exam import Judges
from rlhf.evaluation.figures import Yardstick
from rlhf.evaluation.raters import GOLD_FIGURES, by_scorer, rater_of
from rlhf.evaluation.results import summary
from rlhf.evaluation.written import RESPONSES, read_answers
from rlhf.records import Message
from tests.evaluation.conftest import SEED, Table
from tests.evaluation.test_results import PICTURES, write

SHORT = "def score(prompt, response):\n    return -len(response.split())\n"
PROMPTS = [(Message("user", "who ?"),), (Message("user", "why ?"),)]


def settings(config: Any, judge: str, scorer: str = "short.py") -> Evaluate:
    found: Evaluate = config.evaluate.model_copy(update={"judge": judge, "scorer": scorer})
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "short.py").write_text(SHORT)
    return tmp_path


@pytest.mark.parametrize(
    ("judge", "with_world", "name"),
    [
        ("auto", True, "gold rater"),
        ("auto", False, None),
        ("gold", True, "gold rater"),
        ("reward_model", True, None),
        ("reward_model", False, None),
        ("python", True, "scorer short.py"),
        ("python", False, "scorer short.py"),
    ],
)
def test_the_setting_says_who_rates(
    config: Any, world: World, root: Path, judge: str, with_world: bool, name: str | None
) -> None:
    rater = rater_of(settings(config, judge), world if with_world else None, root)
    assert (rater and rater.name) == name


def test_a_sentiment_rater_gives_gold_scores_and_nothing_else(config: Any, root: Path) -> None:
    gold = SentimentRater(0.5, {"happy": (2.0, 3.0)})
    rater = rater_of(settings(config, "auto"), gold, root)
    assert rater is not None
    assert rater.name == "sentiment rater"
    told = rater.rate(PROMPTS, ["so happy", "well"])
    assert {name: scores.tolist() for name, scores in told.items()} == {"gold_score": [3.5, 0.5]}
    assert rater.perfect(PROMPTS) is None


def test_a_gold_rater_that_is_not_there_is_missed(config: Any, root: Path) -> None:
    with pytest.raises(UserError, match=r"evaluate\.judge \(gold\) needs a gold rater, and artifacts/prepare has none"):
        rater_of(settings(config, "gold"), None, root)


def test_a_scorers_word_is_the_gold_score_alone_and_as_it_is(root: Path) -> None:
    (root / "third.py").write_text("def score(prompt, response):\n    return len(response) / 3\n")
    rater = by_scorer(load_scorer(root, "third.py"))
    told = rater.rate(PROMPTS, ["a", "four"])
    assert {name: list(values) for name, values in told.items()} == {"gold_score": [1 / 3, 4 / 3]}
    assert rater.perfect(PROMPTS) is None


def rated(answers: Answers) -> Answers:
    """By the definition of `SHORT`."""
    return replace(answers, gold={"gold_score": np.array([-len(text.split()) for text in answers.texts], dtype=np.float64)})


@pytest.fixture
def judged(table: Table, pool: list[Answers], root: Path) -> tuple[Path, dict[str, Any], dict[str, Yardstick]]:
    judges: Judges = replace(table.judges, rater=by_scorer(load_scorer(root, "short.py")))
    yardsticks = yardsticks_of(table.exam, judges, table.settings, SEED)
    metrics = write(table, judges, yardsticks, [rated(answers) for answers in pool], root / "results")
    return root / "results", metrics, yardsticks


def test_a_scorer_takes_the_place_of_the_gold_rater_and_everything_says_so(
    judged: tuple[Path, dict[str, Any], dict[str, Yardstick]],
) -> None:
    folder, metrics, yardsticks = judged
    _, answers = read_answers(folder / RESPONSES)
    ours, theirs = rated(answers["ppo", SAMPLED]).gold["gold_score"], rated(yardsticks[SAMPLED].opponent).gold["gold_score"]
    assert list(answers["ppo", SAMPLED].gold) == ["gold_score"]
    assert (answers["ppo", SAMPLED].judged == ours).all()
    assert metrics["ppo"]["gold_score"] == np.mean(ours)
    assert metrics["ppo"]["gold_interval"]["mean"] == pytest.approx(np.mean(ours))
    assert metrics["ppo"]["wins"] == np.mean(ours > theirs)
    assert summary(metrics)["ppo"]["gold_score"] == metrics["ppo"]["gold_score"]
    assert metrics["yardsticks"]["judged_by"] == "scorer short.py"
    assert sorted(path.name for path in folder.glob("*.png")) == PICTURES
    assert "overoptimisation" in metrics["yardsticks"]
    page = (folder / "table.md").read_text()
    assert "judged by the scorer short.py: the gold score is what that gives." in page
    assert f"of 5 SFT samples by the scorer short.py {metrics['yardsticks']['best_of_5_gold']['gold_score']:.2f}" in page
    assert len({line.count("|") for line in page.splitlines()[:11]}) == 1
    assert "gold score" in (folder / "side_by_side.md").read_text()


def test_a_scorer_knows_no_axes_and_no_perfect_answer(judged: tuple[Path, dict[str, Any], dict[str, Yardstick]]) -> None:
    folder, metrics, yardsticks = judged
    assert yardsticks[SAMPLED].perfect is None
    told = {key for name, figures in metrics.items() if name != "yardsticks" for key in figures}
    assert not {*GOLD_FIGURES[1:], "share_closed"} & told
    about = metrics["yardsticks"]
    assert "perfect" not in about
    assert set(about["best_of_5_gold"]) == {"gold_score", "prompts"}
    page = (folder / "table.md").read_text()
    assert "perfect" not in page
    assert "gold rater" not in page


def test_what_the_reward_model_prefers_is_held_against_the_scorer(
    judged: tuple[Path, dict[str, Any], dict[str, Yardstick]],
) -> None:
    folder, metrics, _ = judged
    _, answers = read_answers(folder / RESPONSES)
    models = [rated(found) for (_, decoding), found in answers.items() if decoding == SAMPLED]
    right, pairs = 0.0, 0
    for i in range(len(models[0].texts)):
        for a in range(len(models)):
            for b in range(a):
                gap = models[a].gold["gold_score"][i] - models[b].gold["gold_score"][i]
                preferred = models[a].rewards[i] - models[b].rewards[i]
                if gap:
                    pairs += 1
                    right += 0.5 if not preferred else float((gap > 0) == (preferred > 0))
    assert metrics["yardsticks"]["reward_model"]["pairs"] == pairs
    assert metrics["yardsticks"]["reward_model"]["pairwise_accuracy"] == pytest.approx(right / pairs)


def test_without_the_best_of_n_nothing_is_said_to_be_possible(
    judged: tuple[Path, dict[str, Any], dict[str, Yardstick]],
) -> None:
    _, metrics, _ = judged
    metrics["yardsticks"].pop("best_of_5_gold")
    assert "What is possible" not in report.table(metrics)
    assert "Of two models' sampled answers" in report.table(metrics)
