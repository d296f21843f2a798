"""Trees of messages as in OpenAssistant's OASST: the replies to one message that people ranked are a ranking of K."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlhf.data.conversations import message, read_text
from rlhf.data.entries import Entry, in_order, read_number
from rlhf.data.files import shown
from rlhf.data.raw import RawRow
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


def read_trees(rows: Iterable[RawRow]) -> Iterator[Entry]:
    """The assistant's replies to each message of a user: as a ranking where two or more have a rank, else as demonstrations.

    A row is a message with its `parent_id`, in any order, or a whole tree, its `prompt` with `replies` in it. What was
    deleted or rejected in review is left out with all that replies to it.

    Raises:
        UserError: a row is neither, or the parent of a message is in no row.
    """
    nodes = dict(node for row in rows for node in _nodes(row))
    replies: dict[str, list[Node]] = {}
    for node in nodes.values():
        if node.parent is not None and node.said.role == "assistant" and not node.withdrawn:
            replies.setdefault(node.parent, []).append(node)
    for parent, answers in replies.items():
        prompt = _path_to(parent, answers[0], nodes)
        if prompt is not None:
            yield from _entries(prompt, answers)


def _entries(prompt: Messages, answers: list[Node]) -> Iterator[Entry]:
    ranked = [(node, node.rank) for node in answers if node.rank is not None]
    if len(ranked) > 1:
        levels = sorted({rank for _, rank in ranked})
        sides = [(*prompt, node.said) for node, _ in ranked]
        yield in_order(ranked[0][0].place, sides, [levels.index(rank) for _, rank in ranked])
    else:
        yield from (Entry(node.place, ((*prompt, node.said),)) for node in answers)


def _path_to(identity: str, reply: Node, nodes: Mapping[str, Node]) -> Messages | None:
    """The conversation from the root of the tree up to a message; None where one of it was withdrawn."""
    path: list[Node] = []
    at: str | None = identity
    while at is not None:
        if at not in nodes:
            raise UserError(f"{reply.place}: replies to message {at}, which is in no row: give all rows of its tree")
        if len(path) > len(nodes):
            raise UserError(f"{reply.place}: the messages it replies to reply to each other in a circle")
        path.append(nodes[at])
        at = nodes[at].parent
    return None if any(node.withdrawn for node in path) else tuple(node.said for node in reversed(path))


def _nodes(row: RawRow) -> Iterator[tuple[str, Node]]:
    values = row.values
    match values:
        case {"prompt": {"message_id": _} as root}:
            waiting: list[tuple[str | None, Any]] = [(None, root)]
            while waiting:
                parent, values = waiting.pop(0)
                identity, node = _node(row.place, parent, values)
                yield identity, node
                waiting += [(identity, reply) for reply in values.get("replies") or []]
        case {"message_id": _, "parent_id": parent}:
            yield _node(row.place, parent, values)
        case _:
            raise UserError(
                f"{row.place}: neither a message (message_id, parent_id, role, text) nor a tree of them (prompt, which has "
                f"a message_id and replies), but {', '.join(values)}"
            )


def _node(place: str, parent: str | None, values: Any) -> tuple[str, Node]:
    if not isinstance(values, dict):
        raise UserError(f"{place}: a reply must be a message like {{message_id, role, text}}, not {shown(values)}")
    identity = read_text(place, "message_id", values.get("message_id"))
    role = values.get("role")
    if role not in ROLES:
        raise UserError(f"{place}: field 'role' must be one of {', '.join(ROLES)}, not {shown(role)}")
    text = read_text(place, "text", values.get("text"))
    withdrawn = bool(values.get("deleted")) or values.get("review_result") is False
    rank = read_number(place, "rank", values.get("rank"))
    return identity, Node(place, parent or None, message(ROLES[role], text), rank, withdrawn)
