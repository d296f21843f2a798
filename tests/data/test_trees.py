"""Trees of messages: siblings that were ranked are a ranking, whatever the order of the rows and the form of the tree."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlhf.data.entries import Entry
from rlhf.data.prepared import counts
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


def entries_of(*rows: dict[str, Any], unused: Counter[str] | None = None) -> list[Entry]:
    places = (RawRow(f"x:{i}", values) for i, values in enumerate(rows))
    return list(read_trees(places, Counter() if unused is None else unused))


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


def test_messages_that_come_to_nothing_are_counted() -> None:
    gone = [values | {"deleted": True} if values["message_id"] == "a.2" else values for values in TREE]
    rows = [*gone, row("a.4", "a", "perhaps"), row("a.5", "a", "never", deleted=True)]
    unused: Counter[str] = Counter()
    entries = entries_of(*rows, unused=unused)
    assert unused == {"withdrawn": 4, "unranked": 1}, "a.2 with two that reply to it and a.5; a.4 beside a.1 and a.3"
    replies = sum(values["role"] == "assistant" for values in rows)
    assert sum(len(entry.sides) for entry in entries) + unused["unranked"] == replies - 3, "one of the four is a user's"


def test_a_message_that_comes_twice_is_one_and_another_of_its_id_is_refused() -> None:
    assert found(*TREE, *TREE[2:5]) == EXPECTED
    for changes in ({"text": "other"}, {"rank": 7}, {"parent_id": "b"}, {"role": "prompter"}, {"deleted": True}):
        with pytest.raises(UserError) as caught:
            entries_of(*TREE, TREE[2] | changes)
        assert str(caught.value) == "x:9: message a.2 is another one in x:2: give every message an id of its own"


@pytest.mark.parametrize(
    ("column", "value", "kept"),
    [("deleted", "False", True), ("deleted", "true", False), ("review_result", "FALSE", False), ("review_result", "", True)],
)
def test_true_and_false_may_be_words(column: str, value: str, kept: bool) -> None:
    assert (found(TREE[0], row("a.1", "a", "yes", **{column: value})) != set()) == kept


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [row("a", None, "hm", role=["prompter"])],
            "x:0: field 'role' must be one of prompter, assistant, not [\"prompter\"]",
        ),
        ([row("a", None, "hm", deleted=7)], "x:0: field 'deleted' must be true or false, not 7"),
        ([row("a", None, "hm", review_result="no")], "x:0: field 'review_result' must be true or false, not \"no\""),
        ([row("a", ["b"], "hm")], "x:0: field 'parent_id' must be text, not [\"b\"]"),  # type: ignore[arg-type]
        ([{"prompt": row("a", None, "hm", replies=5)}], "x:0: field 'replies' must be a list of messages, not 5"),
        (
            [{"prompt": row("a", None, "hm", replies=[5])}],
            "x:0: a reply must be a message like {message_id, role, text}, not 5",
        ),
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
    assert "unused" not in counts(made)


def test_figures_say_what_came_to_nothing(tmp_path: Path) -> None:
    rows = [*TREE, row("a.4", "a", "perhaps"), row("a.5", "a", "never", deleted=True)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(values) + "\n" for values in rows))
    made = prepare(settings("oasst", tmp_path / "x.jsonl"), SHARES, seed_of)
    assert counts(made)["unused"] == {"withdrawn": 1, "unranked": 1}
