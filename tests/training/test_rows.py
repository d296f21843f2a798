"""What is said of rows that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.errors import UserError
from rlhf.runtime.run import Run
from rlhf.runtime.tracking import Tracker
from rlhf.training.rows import refuse_dropped, say_truncated


@pytest.mark.parametrize(("dropped", "kept", "share"), [(0, 10, 0.0), (1, 9, 0.1), (5, 5, 0.5), (0, 1, 0.0)])
def test_up_to_the_share_rows_may_go(dropped: int, kept: int, share: float) -> None:
    refuse_dropped("sft", dropped, kept, share, 128)


def test_more_than_the_share_is_refused_with_both_numbers() -> None:
    with pytest.raises(
        UserError, match=r"sft: 2 of 10 rows do not fit the context of 128 tokens, .*sft.max_dropped_share \(0.1\)"
    ):
        refuse_dropped("sft", 2, 8, 0.1, 128)


def test_nothing_left_is_refused_whatever_the_share() -> None:
    with pytest.raises(UserError, match="dpo: none of 4 rows fits the context of 9 tokens"):
        refuse_dropped("dpo", 4, 0, 1.0, 9)


@pytest.mark.parametrize(
    ("truncated", "said"), [(17, "sft cuts 17 of 20 prompts on their left, to fit the context of 512 tokens\n"), (0, "")]
)
def test_prompts_that_are_cut_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], truncated: int, said: str
) -> None:
    run = Run("sft", None, tmp_path, None, tmp_path, Tracker({}, None, 0.0))  # type: ignore[arg-type]
    say_truncated(run, truncated, 20, 512)
    assert capsys.readouterr().out == said
