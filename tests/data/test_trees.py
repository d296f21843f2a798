"""Trees of messages: siblings that were ranked are a ranking, whatever the order of the rows and the form of the tree."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from rlhf.data.entries import Entry
from rlhf.data.raw import RawRow
from rlhf.data.trees import read_trees
from rlhf.errors import UserError
from tests.data.settings import settings
from tests.data.test_entries import said
from tests.data.test_sources import SHARES, prepare, seed_of


def row(identity: str, parent: str | None, text: str, rank: int | None = None, **more: Any) -> dict[str, Any]:
    """With the columns of OpenAssistant/oasst1 that say something; its depth says who speaks."""
    role = "prompter" if identity.count(".") % 2 == 0 else "assistant"
    about = {
        "message_tree_id": identity[0],
        "lang": "en",
        "deleted": False,
        "review_result": True,
        "tree_state": "ready_for_export",
    }
    return {"message_id": identity, "parent_id": parent, "text": text, "role": role, "rank": rank} | about | more


TREE = [
    row("a", None, "who?"),
    row("a.1", "a", "poor", 2),
    row("a.2", "a", "good", 0),
    row("a.3", "a", "fair", 1),
    row("a.2.1", "a.2", "sure?", 0),
    row("a.2.1.1", "a.2.1", "yes"),
    row("b", None, "why?"),
    row("b.1", "b", "so", 0),
    row("b.2", "b", "because"),
]


def entries_of(*rows: dict[str, Any]) -> list[Entry]:
    return list(read_trees(RawRow(f"x:{i}", values) for i, values in enumerate(rows)))


def found(*rows: dict[str, Any]) -> set[tuple[Any, ...]]:
    return {(entry.sides[0][:-1], entry.answers, entry.ranks) for entry in entries_of(*rows)}


EXPECTED = {
    (said("user: who?"), ("good", "fair", "poor"), (0, 1, 2)),
    (said("user: who?", "assistant: good", "user: sure?"), ("yes",), (0,)),
    (said("user: why?"), ("so",), (0,)),
    (said("user: why?"), ("because",), (0,)),
}


def test_ranked_replies_are_a_ranking_and_others_demonstrations() -> None:
    assert found(*TREE) == EXPECTED


def test_the_order_of_the_rows_does_not_matter() -> None:
    for seed in range(20):
        assert found(*random.Random(seed).sample(TREE, len(TREE))) == EXPECTED


def test_a_tree_in_one_row_is_the_same() -> None:
    def nested(identity: str) -> dict[str, Any]:
        (mine,) = (values for values in TREE if values["message_id"] == identity)
        replies = [nested(values["message_id"]) for values in TREE if values["parent_id"] == identity]
        return {key: value for key, value in mine.items() if key != "parent_id"} | {"replies": replies}

    assert found(*({"message_tree_id": root, "tree_state": "x", "prompt": nested(root)} for root in "ab")) == EXPECTED


def test_equal_ranks_tie_and_two_of_three_are_enough() -> None:
    rows = [TREE[0], row("a.1", "a", "x", 5), row("a.2", "a", "y", 5), row("a.3", "a", "z")]
    assert found(*rows) == {(said("user: who?"), ("x", "y"), (0, 0))}


@pytest.mark.parametrize("mark", [{"deleted": True}, {"review_result": False}])
def test_what_was_withdrawn_goes_with_all_that_replies_to_it(mark: dict[str, bool]) -> None:
    gone = [values | mark if values["message_id"] == "a.2" else values for values in TREE]
    assert found(*gone) == {
        (said("user: who?"), ("fair", "poor"), (0, 1)),
        *(case for case in EXPECTED if case[0] == said("user: why?")),
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (TREE[1:], "x:0: replies to message a, which is in no row: give all rows of its tree"),
        ([row("a", None, "hm", role="bot")], "x:0: field 'role' must be one of prompter, assistant, not \"bot\""),
        ([row("a", None, "hm") | {"text": None}], "x:0: field 'text' is null"),
        ([row("a", None, "hm", rank="best")], "x:0: field 'rank' must be a finite number, not \"best\""),  # type: ignore[arg-type]
        (
            [{"text": "hm"}],
            "x:0: neither a message (message_id, parent_id, role, text) nor a tree of them (prompt, which has",
        ),
        ([row("a", "a.1", "hm"), row("a.1", "a", "ha")], "x:1: the messages it replies to reply to each other in a circle"),
    ],
)
def test_what_is_no_tree_is_named(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError) as caught:
        entries_of(*rows)
    assert str(caught.value).startswith(message)


def test_a_tree_may_have_its_rows_in_several_files(tmp_path: Path) -> None:
    for name, rows in {"1.jsonl": TREE[::2], "2.jsonl": TREE[1::2]}.items():
        (tmp_path / name).write_text("".join(json.dumps(values) + "\n" for values in rows))
    made = prepare(settings("oasst", tmp_path), SHARES, seed_of)
    (ranking,) = made.rankings
    assert ([response.text for response in ranking.responses], ranking.ranks) == (["good", "fair", "poor"], (0, 1, 2))
    assert (made.preferences, len(made.demonstrations), len(made.prompts)) == ([], 4, 3)
