"""One question to a real server on loopback: what is sent, what is tried again, and what is said when nothing helps."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable, Sequence
from email.utils import formatdate
from time import time
from typing import Any

import pytest

from rlhf.errors import UserError
from rlhf.runtime.endpoint.client import BACK_OFF, Client, read_answer
from rlhf.runtime.endpoint.store import Answer
from tests.loopback import KEY, Reply, Request, complains, says, serve

Make = Callable[..., Client]
NESTED = b"[" * 200_000 + b"]" * 200_000
BOUND = 1 + 64 + 20  # tokens that the question "?" may cost at most
CHINESE = "哪个回答更好？\n「甲」🙂"


def in_turn(*replies: Reply) -> Callable[[Request], Reply]:
    """The first reply to the first request, and so on; the last one to all that follow."""
    return lambda request: replies[min(request.number, len(replies)) - 1]


def test_what_is_sent_to_the_byte(make_client: Make) -> None:
    with serve(in_turn(says("好：A"))) as server:
        assert make_client(server).ask(CHINESE) == Answer("好：A", 7, 3, finish_reason="stop")
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.headers["Content-Type"] == "application/json; charset=utf-8"
    content = CHINESE.replace("\n", "\\n")
    messages = f'[{{"role": "user", "content": "{content}"}}]'
    expected = f'{{"model": "judge", "messages": {messages}, "temperature": 0.0, "max_tokens": 20}}'
    assert request.body == expected.encode()


def test_settings_of_the_answer_are_sent_and_without_a_key_none_is(make_client: Make) -> None:
    with serve(in_turn(says("A"))) as server:
        make_client(server, key="", temperature=None, limit_name="max_completion_tokens", max_answer_tokens=5).ask("?")
    (request,) = server.requests
    assert "Authorization" not in request.headers
    assert json.loads(request.body).keys() == {"model", "messages", "max_completion_tokens"}


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(make_client: Make, pauses: list[float]) -> None:
    busy = complains(429, Retry_After="7")
    at = complains(503, Retry_After=formatdate(time() + 60, usegmt=True))
    with serve(in_turn(busy, at, says("A"))) as server:
        client = make_client(server)
        assert client.ask("?").text == "A"
    assert 6 < pauses[0] <= 7
    assert 50 < pauses[1] <= 60
    assert (client.budget.requests, client.budget.retries) == (3, 2)


@pytest.mark.parametrize(("said", "minutes"), [("601", "10"), ("31536000", "525600")])
def test_a_server_that_asks_for_more_than_some_minutes_ends_it_with_how_long(
    make_client: Make, pauses: list[float], said: str, minutes: str
) -> None:
    with serve(in_turn(complains(429, "quota", Retry_After=said))) as server, pytest.raises(UserError) as caught:
        make_client(server).ask("?")
    assert str(caught.value) == (
        f"the judge's server asks to be left alone for {minutes} minutes (status 429: quota), and more than 10 are not "
        "waited for"
    )
    assert (len(server.requests), pauses) == (1, [])
    with serve(in_turn(complains(429, Retry_After="600"), says("A"))) as server:
        assert make_client(server).ask("?").text == "A"
    assert 599 < pauses[0] <= 600


def test_a_broken_server_is_tried_again_after_pauses_that_double(make_client: Make, pauses: list[float]) -> None:
    with serve(in_turn(*[complains(500)] * 4, says("B"))) as server:
        assert make_client(server, retries=4).ask("?").text == "B"
    assert len(server.requests) == 5
    for place, pause in enumerate(pauses, start=1):
        assert BACK_OFF * 2**place <= pause <= BACK_OFF * 2**place + BACK_OFF  # doubled, and up to one more by chance
    assert len(pauses) == 3  # the first try anew comes at once


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (complains(502, "overloaded"), "last status 502: overloaded"),
        (Reply(200, b"<html>"), "last an answer that is no chat completion"),
        (Reply(200, b'{"choices": []}'), "last an answer that is no chat completion"),
        (complains(429, "quota", Retry_After="soon"), "last status 429: quota"),
        (Reply(hang=True), "last nothing for 0.05 s"),
    ],
)
def test_in_the_end_it_says_what_the_last_try_met(make_client: Make, reply: Reply, why: str) -> None:
    with serve(in_turn(reply)) as server:
        with pytest.raises(UserError) as caught:
            make_client(server, retries=2, timeout_seconds=0.05 if reply.hang else 10.0).ask("?")
        assert str(caught.value) == f"the judge's server gave no answer in 3 tries, {why}"
        assert len(server.requests) == 3


def test_without_retries_there_is_one_try(make_client: Make) -> None:
    with serve(in_turn(complains(500))) as server, pytest.raises(UserError, match="in 1 tries"):
        make_client(server, retries=0).ask("?")
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_said(make_client: Make) -> None:
    with serve(in_turn(says("A"))) as server:
        client = make_client(server, retries=1)
    with pytest.raises(UserError, match="in 2 tries, last ConnectionError: no connection") as caught:
        client.ask("?")
    assert str(server.server_port) not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_said_at_once_and_never_shown(make_client: Make, status: int) -> None:
    wrong = complains(status, f"Incorrect API key provided: {KEY}")
    with serve(in_turn(wrong)) as server, pytest.raises(UserError) as caught:
        make_client(server).ask("?")
    message = f"the judge's server refuses the key (status {status}): set RLHF_JUDGE_KEY to a right one"
    assert str(caught.value) == message
    assert len(server.requests) == 1
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_an_unknown_model_is_said_at_once(make_client: Make) -> None:
    with (
        serve(in_turn(complains(404, "no such model"))) as server,
        pytest.raises(UserError, match=r"knows no model judge \(endpoint\.model\), or .* \(status 404: no such model\)"),
    ):
        make_client(server).ask("?")
    assert len(server.requests) == 1


def test_a_redirection_is_not_followed(make_client: Make) -> None:
    with serve(in_turn(says("A"))) as elsewhere:
        leads_there = Reply(307, headers={"Location": elsewhere.url})
        with serve(in_turn(leads_there)) as server, pytest.raises(UserError, match="answers with status 307"):
            make_client(server).ask("?")
    assert not elsewhere.requests


def test_neither_key_nor_address_is_in_what_a_server_complains_of(make_client: Make) -> None:
    with serve(lambda request: complains(400, f"{KEY} at {server.url} is too long")) as server:
        refused = make_client(server).ask("?")
    assert refused == Answer(None, refusal="status 400: [hidden] at [hidden] is too long")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "reason"), [(b'{"error": {"message": "too long \\ud800"}}', "too long ?"), (NESTED, "[" * 200)]
)
def test_a_complaint_of_any_form_can_be_written_down(make_client: Make, body: bytes, reason: str) -> None:
    with serve(in_turn(Reply(400, body))) as server:
        assert make_client(server).ask("?") == Answer(None, refusal=f"status 400: {reason}")


def test_what_is_shown_of_a_client_has_no_secret(make_client: Make) -> None:
    with serve(in_turn(says("A"))) as server:
        client = make_client(server)
        assert not re.search(f"{KEY}|{server.server_port}", repr(client) + repr(client.address))


def test_a_key_is_of_all_that_an_answer_depends_on_and_of_nothing_else(make_client: Make) -> None:
    with serve(in_turn(says("A"))) as server:
        key = make_client(server).key("?")
        same = [make_client(server, key="other"), make_client(server, concurrency=1, retries=9, most_requests=5)]
        others = [
            make_client(server, model="m"),
            make_client(server, temperature=0.5),
            make_client(server, max_answer_tokens=9),
        ]
    assert {client.key("?") for client in same} == {key}
    assert len({key, make_client(server).key("!"), *(client.key("?") for client in others)}) == 5
    assert re.fullmatch("[0-9a-f]{64}", key)


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (says("A").body, Answer("A", 7, 3, finish_reason="stop")),
        (says(None).body, Answer("", 7, 3, finish_reason="stop")),
        (says("A", finish_reason="length").body, Answer("A", 7, 3, finish_reason="length")),
        (says("A", finish_reason=None).body, Answer("A", 7, 3)),
        (b'{"choices": [{"message": {"content": "A"}}]}', Answer("A", 0, 0)),
        (b'{"choices": [{"message": {"content": "A"}}], "usage": null}', Answer("A", 0, 0)),
        (b'{"choices": [{"message": {"content": 3}}]}', None),
        (b'{"choices": [{"message": null}]}', None),
        (b'{"choices": [{"message": {"content": "\\ud800 A \\ud83d\\ude42"}}]}', Answer("? A 🙂", 0, 0)),
        (NESTED, None),
        (b"[]", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_an_answer_is_read_or_it_is_none(content: bytes, answer: Answer | None) -> None:
    assert read_answer(content) == answer


@pytest.mark.parametrize(
    ("usage", "used"),
    [
        ((7, 3), 10),
        ((0, 0), BOUND),
        ((-5000, 3), BOUND),
        ((7, -3), BOUND),
        ((float("inf"), 3), BOUND),
        ((float("nan"), 3), BOUND),
        ((7, "3"), BOUND),
        ((None, None), BOUND),
        ((7.0, 3.0), 10),
    ],
)
def test_a_server_that_does_not_count_is_taken_to_have_used_all_it_might(
    make_client: Make, usage: Sequence[Any], used: int
) -> None:
    said = json.loads(says("A").body) | {"usage": dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True))}
    with serve(in_turn(Reply(body=json.dumps(said).encode()))) as server:
        client = make_client(server)
        client.ask("?")
    assert (client.budget.tokens, client.budget.reserved) == (used, 0)


@pytest.mark.parametrize(
    ("reply", "used"),
    [
        (Reply(hang=True), BOUND),
        (Reply(breaks=True), BOUND),
        (Reply(200, b"<html>"), BOUND),
        (complains(500), 0),
        (complains(429), 0),
    ],
)
def test_a_try_that_may_have_cost_something_is_paid_for_as_if_it_had_cost_all_it_might(
    make_client: Make, reply: Reply, used: int
) -> None:
    with serve(in_turn(reply, reply, says("A"))) as server:
        client = make_client(server, timeout_seconds=0.2 if reply.hang else 10.0)
        client.ask("?")
        assert len(server.requests) == 3
    assert (client.budget.tokens, client.budget.reserved) == (2 * used + 10, 0)


def test_a_budget_of_tokens_stops_tries_anew_at_a_server_that_does_not_answer(make_client: Make) -> None:
    with serve(in_turn(Reply(200, b"<html>"))) as server:
        with pytest.raises(UserError, match=rf"endpoint\.most_tokens \({2 * BOUND}\) could be exceeded"):
            make_client(server, most_tokens=2 * BOUND, retries=9).ask("?")
        assert len(server.requests) == 2


def test_a_server_that_was_never_reached_costs_nothing(make_client: Make) -> None:
    with serve(in_turn(says("A"))) as server:
        client = make_client(server, retries=1)
    with pytest.raises(UserError, match="in 2 tries"):
        client.ask("?")
    assert (client.budget.requests, client.budget.tokens, client.budget.reserved) == (2, 0, 0)
