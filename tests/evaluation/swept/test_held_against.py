"""A sweep begins only where its policies can be compared with what the repository has evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf.errors import UserError
from rlhf.evaluation.swept.held_against import check, exam_seed, held_by
from rlhf.runtime.hashes import md5_of
from rlhf.runtime.sweeps.plan import Plan
from tests.evaluation.swept.conftest import SETTLED, Books


def plan(**changes: Any) -> Plan:
    settings = {"seed": 0} | SETTLED | {key.replace("__", "."): value for key, value in changes.items()}
    return Plan(
        stage="ppo",
        swept={"seed": ["0", "1"]},
        jobs=[{"seed": "0"}, {"seed": "1"}],
        settings=settings,
        folder=Path("sweeps/x"),
        named=False,
        resumed=False,
        command="python stages/ppo.py -m seed=0,1",
    )


def test_the_same_exam_is_let_through_and_its_seed_is_that_of_the_evaluation(books: Books) -> None:
    check(books.root, plan())
    assert exam_seed(books.root) == 7


@pytest.mark.parametrize("name", ["responses.jsonl", "sft_samples.jsonl"])
def test_what_is_missing_is_named_with_the_command_that_makes_it(books: Books, name: str) -> None:
    (books.root / "artifacts" / "evaluate" / name).unlink()
    with pytest.raises(UserError, match=rf"artifacts/evaluate/{name} is missing.*dvc repro evaluate"):
        check(books.root, plan())


def test_another_judge_than_the_evaluation_had_is_refused(books: Books) -> None:
    (books.root / "artifacts" / "reward" / "model" / "file").write_text("learnt anew")
    with pytest.raises(UserError, match="artifacts/evaluate was made from another artifacts/reward/model than lies here"):
        check(books.root, plan())


def test_another_way_of_asking_is_refused_with_both_values(books: Books) -> None:
    with pytest.raises(UserError, match=r"evaluate\.temperature is 0\.5 here, 1\.0 in artifacts/evaluate"):
        check(books.root, plan(evaluate__temperature=0.5))


def test_another_evaluator_is_refused_with_both_values(books: Books) -> None:
    with pytest.raises(UserError, match=r"evaluate\.judge is python here, auto in artifacts/evaluate"):
        check(books.root, plan(evaluate__judge="python", evaluate__scorer="mine.py"))


def test_a_scorer_is_held_to_the_bytes_that_the_evaluation_had(books: Books) -> None:
    (books.root / "mine.py").write_text("def score(prompt, response):\n    return 1\n")
    lock = yaml.safe_load((books.root / "dvc.lock").read_text())
    lock["stages"]["evaluate"]["params"]["params.yaml"]["evaluate"]["judge"] = "python"
    lock["stages"]["evaluate"]["deps"].append({"path": "mine.py", "md5": md5_of(books.root / "mine.py")})
    (books.root / "dvc.lock").write_text(yaml.safe_dump(lock))
    mine = plan(evaluate__judge="python", evaluate__scorer="mine.py")
    before = check(books.root, mine)
    assert before["mine.py"] == md5_of(books.root / "mine.py")
    (books.root / "mine.py").write_text("def score(prompt, response):\n    return 2\n")
    assert held_by(books.root, mine.settings) != before
    with pytest.raises(UserError, match=r"artifacts/evaluate was made from another mine\.py than lies here"):
        check(books.root, mine)
    (books.root / "mine.py").unlink()
    with pytest.raises(UserError, match=r"another mine\.py than lies here"):
        check(books.root, mine)


def test_a_lock_that_knows_no_evaluation_is_refused(books: Books) -> None:
    (books.root / "dvc.lock").write_text("stages: {}\n")
    with pytest.raises(UserError, match=r"dvc\.lock does not say what artifacts/evaluate was made from"):
        check(books.root, plan())
