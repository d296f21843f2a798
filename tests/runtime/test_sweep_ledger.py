"""Whose folder a sweep gets, and which one it may go on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.errors import UserError
from rlhf.runtime.sweeps.ledger import forget_failures, held, open_sweep
from rlhf.runtime.sweeps.plan import Plan, plan
from tests.runtime.sweep_runs import GRID, planned


def test_sweeps_that_begin_in_the_same_second_have_folders_of_their_own(root: Path) -> None:
    one = planned(root, *GRID)
    folders = [open_sweep(root, one)[0].folder for _ in range(3)]
    assert [folder.name.removeprefix(one.folder.name) for folder in folders] == ["", "-2", "-3"]
    assert all(json.loads((folder / "sweep.json").read_text())["jobs"] == one.jobs for folder in folders)


@pytest.mark.parametrize("left", ["sweep.json", "notes.txt"])
def test_a_folder_that_was_named_and_is_taken_stays_as_it_is(root: Path, left: str) -> None:
    (root / "mine").mkdir()
    (root / "mine" / left).write_text("of somebody else")
    with pytest.raises(UserError, match=r"mine is taken: name another one, or go on .* by sweep\.resume=DIR"):
        open_sweep(root, planned(root, *GRID, "hydra.sweep.dir=mine"))
    assert [(path.name, path.read_text()) for path in (root / "mine").iterdir()] == [(left, "of somebody else")]


def test_a_folder_that_was_named_and_is_a_file_stays_as_it_is(root: Path) -> None:
    (root / "mine").write_text("of somebody else")
    with pytest.raises(UserError, match="mine is taken"):
        open_sweep(root, planned(root, *GRID, "hydra.sweep.dir=mine"))
    assert (root / "mine").read_text() == "of somebody else"


def test_an_empty_folder_that_was_named_belongs_to_the_first_who_comes(root: Path) -> None:
    (root / "mine").mkdir()
    mine = planned(root, *GRID, "hydra.sweep.dir=mine")
    assert open_sweep(root, mine)[0].folder == root / "mine"
    with pytest.raises(UserError, match="mine is taken"):
        open_sweep(root, mine)


def going_on(root: Path, *arguments: str, stage: str = "ppo") -> Plan:
    found = plan(root, stage, [*arguments, "sweep.resume=old"])
    assert found is not None
    return found


@pytest.fixture
def old(root: Path) -> Path:
    """The sweep.json of a sweep whose first job is done, the second failed, and the third was stopped."""
    open_sweep(root, planned(root, *GRID, "hydra.sweep.dir=old"))
    for job, status in enumerate(("done", "failed", "running")):
        (root / "old" / str(job)).mkdir()
        (root / "old" / str(job) / "job.json").write_text(json.dumps({"status": status, "settings": {}}))
    return root / "old" / "sweep.json"


def test_going_on_forgets_what_failed_and_nothing_else(root: Path, old: Path) -> None:
    before = old.read_bytes()
    found, book = open_sweep(root, going_on(root, *GRID))
    assert (found.folder, book) == (root / "old", json.loads(before))
    forget_failures(found.folder)
    assert [(root / "old" / str(job) / "job.json").exists() for job in range(3)] == [True, False, True]
    assert old.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "ppo.kl_ctl=0.05,0.2", "ppo.clip_range=0.1,0.2"), "  ppo.kl_ctl: 0.05, 0.1 there, 0.05, 0.2 now"),
        (("-m", "ppo.kl_ctl=0.1,0.05", "ppo.clip_range=0.1,0.2"), "  ppo.kl_ctl: 0.05, 0.1 there, 0.1, 0.05 now"),
        (
            ("-m", "ppo.kl_ctl=0.05,0.1"),
            "  ppo.clip_range: 0.1, 0.2 there, nothing now\n  ppo.clip_range: 0.1, 0.2 there, 0.2 now",
        ),
        (
            ("-m", GRID[2], GRID[1]),
            "  the order of the settings: ppo.kl_ctl, ppo.clip_range there, ppo.clip_range, ppo.kl_ctl now",
        ),
        ((*GRID, "seed=3"), "  seed: 0 there, 3 now"),
    ],
)
def test_going_on_with_another_sweep_is_refused_and_changes_nothing(
    root: Path, old: Path, arguments: tuple[str, ...], message: str
) -> None:
    was = "it was: python stages/ppo.py -m ppo.kl_ctl=0.05,0.1 ppo.clip_range=0.1,0.2 hydra.sweep.dir=old"
    with pytest.raises(UserError) as said:
        open_sweep(root, going_on(root, *arguments))
    assert str(said.value) == f"sweep.resume ({root / 'old'}) is another sweep:\n{message}\n{was}"
    assert (root / "old" / "1" / "job.json").exists()


def test_going_on_after_an_input_has_changed_is_refused(root: Path, old: Path) -> None:
    (root / "artifacts" / "sft").write_text("another policy")
    with pytest.raises(UserError, match=r"is another sweep:\n  artifacts/sft: [0-9a-f]{32} there, [0-9a-f]{32} now\n"):
        open_sweep(root, going_on(root, *GRID))


def test_going_on_with_the_sweep_of_another_stage_is_refused(root: Path, old: Path) -> None:
    with pytest.raises(UserError, match=r"is another sweep:\n  stage: ppo there, dpo now\n"):
        open_sweep(root, going_on(root, "-m", "seed=1,2", stage="dpo"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"sweep\.resume \(.*/old\) holds no sweep: sweep\.json is not there"),
        ("{", r"old/sweep\.json is not JSON: Expecting"),
        ("", r"old/sweep\.json is not JSON: Expecting"),
        ("[]", r"old/sweep\.json is not a JSON object"),
        ('{"stage": "ppo"}', r"old/sweep\.json is not the sweep\.json of a sweep: it has no swept, jobs"),
    ],
)
def test_going_on_with_what_is_no_sweep_is_refused(root: Path, old: Path, content: str | None, message: str) -> None:
    old.unlink()
    if content is not None:
        old.write_text(content)
    with pytest.raises(UserError, match=message):
        open_sweep(root, going_on(root, *GRID))


def test_going_on_in_a_folder_that_is_not_there_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r"holds no sweep: sweep\.json is not there"):
        open_sweep(root, going_on(root, *GRID))
    assert not (root / "old").exists()


def test_a_sweep_that_another_process_works_on_is_left_to_it(root: Path, old: Path) -> None:
    busy = r"another process is at work on .*/old: wait for its end, or stop it"
    with held(old.parent), pytest.raises(UserError, match=busy), held(old.parent):
        raise AssertionError("two hold it")
    with held(old.parent):
        pass
