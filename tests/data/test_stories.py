"""Stories cut in two: at the ends of sentences, every story once, and each opening in one split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhf.config import Prepare, Stories
from rlhf.data.prepared import Prepared, check
from rlhf.data.sources import prepare
from rlhf.data.stories import Cut, cut, read_stories
from rlhf.errors import UserError
from tests.data.settings import settings
from tests.data.test_sources import SHARES, config_with, seed_of

SIZES = Stories(opening_sentences=2, continuation_sentences=1)


def prepared(path: Path, shares: Prepare = SHARES, **changes: Any) -> Prepared:
    return prepare(settings("stories", path, **({"stories": SIZES} | changes)), shares, seed_of)


def file_of(folder: Path, count: int) -> Path:
    path = folder / "stories.txt"
    stories = (f"There was a cat named {i // 2}. It\nsat! It ran {i}. The end.\n" for i in range(count))
    path.write_text("<|endoftext|>\n".join(stories))
    return path


def test_a_story_is_cut_at_the_ends_of_sentences() -> None:
    told = 'Ben  saw\na dog. "Hi!" said Ben. The dog said, "Wow!" Ben smiled.'
    assert cut(told, Stories(opening_sentences=1, continuation_sentences=2)) == Cut("Ben saw a dog.", '"Hi!" said Ben.')


def test_what_breaks_off_is_no_sentence() -> None:
    assert cut("One. Two. Three", SIZES) is None
    assert cut("One. Two.", SIZES) is None
    assert cut("One. Two. Three. Fo", SIZES) == Cut("One. Two.", "Three.")


def test_marks_stand_anywhere_and_the_last_one_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("\nA.\nB.\n<|endoftext|>\n\n<|endoftext|>C.<|endoftext|>D.\n")
    assert list(read_stories(path)) == ["A.\nB.", "C.", "D."]


def test_openings_are_prompts_and_continuations_demonstrations(tmp_path: Path) -> None:
    made = prepared(file_of(tmp_path, 400))
    check(made, config_with(settings("stories", "x", stories=SIZES)))
    assert len(made.prompts) == 200
    assert {d.completion for d in made.demonstrations} == {f"It ran {i}." for i in range(400)}
    split_of = {p.prompt: p.split for p in made.prompts}
    assert all(split_of[d.prompt] == d.split for d in made.demonstrations)
    assert made.prompts[0].prompt[0].content == "There was a cat named 0. It sat!"
    assert made.rows == {"read": 400, "kept": 400, "dropped": {}, "left_out": 0}


def test_prompts_that_are_not_drawn_take_their_stories_with_them(tmp_path: Path) -> None:
    made = prepared(file_of(tmp_path, 400), prompts=50)
    assert len(made.prompts) == 50
    assert made.rows["kept"] == len(made.demonstrations) == 100
    assert made.rows["left_out"] == 300


def test_short_stories_are_counted_and_too_many_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path, 40)
    path.write_text(path.read_text() + "<|endoftext|>\nToo short.\n")
    assert prepared(path).rows["dropped"] == {"too_short": 1}
    with pytest.raises(UserError, match=r"1 of 41 stories .* more than prepare\.max_dropped_share \(0\.01\)"):
        prepared(path, SHARES.model_copy(update={"max_dropped_share": 0.01}))


def test_a_file_without_stories_and_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(" \n<|endoftext|>\n")
    with pytest.raises(UserError, match=r"x\.txt: has no stories"):
        prepared(tmp_path / "x.txt")
    (tmp_path / "more").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        list(read_stories(tmp_path / "more"))
