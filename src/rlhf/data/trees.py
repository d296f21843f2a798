"""Trees of messages as in OpenAssistant's OASST: the replies to one message that people ranked are a ranking of K."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rlhf.data.conversations import message
from rlhf.data.entries import Entry, in_order
from rlhf.data.files import shown
from rlhf.data.raw import RawRow
from rlhf.data.values import read_flag, read_number, read_text
from rlhf.errors import UserError
from rlhf.records import Message, Messages

ROLES = {"prompter": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Node:
    """A message, the one it replies to, and its rank among the replies to that one (0 is the best)."""

    place: str
    parent: str | None
    said: Message
    rank: float | None
    withdrawn: bool


def read_trees(rows: Iterable[RawRow], unused: Counter[str]) -> Iterator[Entry]:
    """The assistant's replies to each message of a user: as a ranking where two or more have a rank, else as demonstrations.

    A row is a message with its `parent_id`, in any order, or a whole tree, its `prompt` with `replies` in it. What was
    deleted or rejected in review is left out with all that replies to it.

    unused: to count messages in: those `withdrawn`, and the `unranked` ones beside ranked ones.

    Raises:
        UserError: a row is neither, the parent of a message is in no row, or two messages have one id.
    """
    nodes = _by_identity(rows)
    gone = _withdrawn(nodes)
    unused["withdrawn"] += len(gone)
    replies: dict[str, list[Node]] = {}
    for identity, node in nodes.items():
        if node.parent is not None and node.said.role == "assistant" and identity not in gone:
            replies.setdefault(node.parent, []).append(node)
    for parent, answers in replies.items():
        yield from _entries(_path_to(parent, answers[0], nodes), answers, unused)


def _by_identity(rows: Iterable[RawRow]) -> dict[str, Node]:
    """Each message once, however often it comes."""
    nodes: dict[str, Node] = {}
    for identity, node in (node for row in rows for node in _nodes(row)):
        first = nodes.setdefault(identity, node)
        if replace(node, place=first.place) != first:
            raise UserError(
                f"{node.place}: message {identity} is another one in {first.place}: give every message an id of its own"
            )
    return nodes


def _withdrawn(nodes: Mapping[str, Node]) -> set[str]:
    """The messages that were withdrawn, and all that reply to them."""
    children: dict[str, list[str]] = {}
    for identity, node in nodes.items():
        if node.parent is not None:
            children.setdefault(node.parent, []).append(identity)
    gone: set[str] = set()
    waiting = [identity for identity, node in nodes.items() if node.withdrawn]
    while waiting:
        identity = waiting.pop()
        if identity not in gone:
            gone.add(identity)
            waiting += children.get(identity, [])
    return gone


def _entries(prompt: Messages, answers: list[Node], unused: Counter[str]) -> Iterator[Entry]:
    ranked = [(node, node.rank) for node in answers if node.rank is not None]
    if len(ranked) > 1:
        unused["unranked"] += len(answers) - len(ranked)
        levels = sorted({rank for _, rank in ranked})
        sides = [(*prompt, node.said) for node, _ in ranked]
        yield in_order(ranked[0][0].place, sides, [levels.index(rank) for _, rank in ranked])
    else:
        yield from (Entry(node.place, ((*prompt, node.said),)) for node in answers)


def _path_to(identity: str, reply: Node, nodes: Mapping[str, Node]) -> Messages:
    """The conversation from the root of the tree up to a message."""
    path: list[Node] = []
    at: str | None = identity
    while at is not None:
        if at not in nodes:
            raise UserError(f"{reply.place}: replies to message {at}, which is in no row: give all rows of its tree")
        if len(path) > len(nodes):
            raise UserError(f"{reply.place}: the messages it replies to reply to each other in a circle")
        path.append(nodes[at])
        at = nodes[at].parent
    return tuple(node.said for node in reversed(path))


def _nodes(row: RawRow) -> Iterator[tuple[str, Node]]:
    values = row.values
    match values:
        case {"prompt": {"message_id": _} as root}:
            waiting: list[tuple[str | None, Any]] = [(None, root)]
            while waiting:
                parent, values = waiting.pop(0)
                identity, node = _node(row.place, parent, values)
                yield identity, node
                waiting += [(identity, reply) for reply in _replies(row.place, values.get("replies"))]
        case {"message_id": _, "parent_id": parent}:
            yield _node(row.place, None if parent in (None, "") else read_text(row.place, "parent_id", parent), values)
        case _:
            raise UserError(
                f"{row.place}: neither a message (message_id, parent_id, role, text) nor a tree of them (prompt, which has "
                f"a message_id and replies), but {', '.join(values)}"
            )


def _replies(place: str, replies: Any) -> list[Any]:
    if replies is not None and not isinstance(replies, list):
        raise UserError(f"{place}: field 'replies' must be a list of messages, not {shown(replies)}")
    return replies or []


def _node(place: str, parent: str | None, values: Any) -> tuple[str, Node]:
    if not isinstance(values, dict):
        raise UserError(f"{place}: a reply must be a message like {{message_id, role, text}}, not {shown(values)}")
    identity = read_text(place, "message_id", values.get("message_id"))
    role = values.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise UserError(f"{place}: field 'role' must be one of {', '.join(ROLES)}, not {shown(role)}")
    text = read_text(place, "text", values.get("text"))
    deleted, accepted = (read_flag(place, column, values.get(column)) for column in ("deleted", "review_result"))
    rank = read_number(place, "rank", values.get("rank"))
    return identity, Node(place, parent, message(ROLES[role], text), rank, bool(deleted) or accepted is False)
