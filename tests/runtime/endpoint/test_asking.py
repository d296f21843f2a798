"""Many questions to a real server on loopback: each is asked once in all, and nothing that was answered gets lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf.errors import UserError
from rlhf.runtime.endpoint.asking import REFUSED_AT_FIRST, ask_all
from rlhf.runtime.endpoint.client import Client
from rlhf.runtime.endpoint.store import Store
from tests.loopback import KEY, Reply, Request, complains, says, serve
from tests.runtime.endpoint.conftest import SETTINGS

Make = Callable[..., Client]
QUESTIONS = [f"question {number} ?" for number in range(30)]
PATIENCE = 60  # seconds for what takes one


def echo(request: Request) -> Reply:
    return says(request.question.upper())


@pytest.mark.parametrize("concurrency", [1, 7])
def test_every_distinct_question_is_asked_once_and_then_never_again(
    make_client: Make, tmp_path: Path, concurrency: int
) -> None:
    store = Store(tmp_path)
    with serve(echo) as server:
        first = list(ask_all(make_client(server, concurrency=concurrency), [*QUESTIONS, *QUESTIONS[:5]], store))
        assert {one.question: one.answer.text for one in first} == {question: question.upper() for question in QUESTIONS}
        assert len(first) == len(QUESTIONS) == len(server.requests)
        again = list(ask_all(make_client(server), QUESTIONS, store))
        assert len(server.requests) == len(QUESTIONS)
    assert {(one.question, one.answer) for one in again} == {(one.question, one.answer) for one in first}
    assert [any(one.remembered for one in some) for some in (first, again)] == [False, True]


def test_so_many_are_under_way_at_once_and_no_more(make_client: Make, tmp_path: Path) -> None:
    """Nobody is answered until three are there; a fourth would be seen."""
    lock, there = threading.Lock(), [0, 0]
    together = threading.Barrier(3)

    def rule(request: Request) -> Reply:
        with lock:
            there[0] += 1
            there[1] = max(there)
        together.wait(PATIENCE)
        with lock:
            there[0] -= 1
        return says("A")

    with serve(rule) as server:
        assert len(list(ask_all(make_client(server, concurrency=3), QUESTIONS, Store(tmp_path)))) == len(QUESTIONS)
    assert there[1] == 3


@pytest.mark.parametrize("concurrency", [1, 7])
def test_a_budget_is_kept_to_and_the_next_run_goes_on(make_client: Make, tmp_path: Path, concurrency: int) -> None:
    store = Store(tmp_path)
    with serve(echo) as server:
        for done in (12, 24):
            with pytest.raises(UserError) as caught:
                list(ask_all(make_client(server, most_requests=12, concurrency=concurrency), QUESTIONS, store))
            assert str(caught.value) == (
                f"endpoint.most_requests (12) are used up. {done} of 30 questions are answered and remembered: the same "
                "command asks the rest"
            )
            assert len(server.requests) == done
        assert len(list(ask_all(make_client(server, most_requests=12), QUESTIONS, store))) == len(QUESTIONS)
    assert sorted(request.question for request in server.requests) == sorted(QUESTIONS)


def test_tries_anew_are_paid_from_the_budget(make_client: Make, tmp_path: Path) -> None:
    with serve(lambda request: complains(500) if request.number % 2 else says("A")) as server:
        with pytest.raises(UserError, match=r"most_requests \(10\) are used up\. 5 of 30"):
            list(ask_all(make_client(server, most_requests=10, concurrency=1), QUESTIONS, Store(tmp_path)))
        assert len(server.requests) == 10


def test_a_budget_of_tokens_is_never_exceeded(make_client: Make, tmp_path: Path) -> None:
    store, most = Store(tmp_path), 200
    bound = len(QUESTIONS[-1]) + 64 + 20
    with serve(lambda request: says("A", read=60, written=bound - 60)) as server:  # the worst it can cost
        with pytest.raises(UserError, match=r"endpoint\.most_tokens \(200\) could be exceeded by the next request"):
            list(ask_all(make_client(server, most_tokens=most, concurrency=5), QUESTIONS, store))
        assert len(server.requests) == most // bound == 2


def test_a_wrong_key_ends_it_with_one_message_and_without_trying_all(make_client: Make, tmp_path: Path) -> None:
    with serve(lambda request: complains(401, KEY)) as server:
        with pytest.raises(UserError) as caught:
            list(ask_all(make_client(server, concurrency=3), QUESTIONS, Store(tmp_path)))
        assert len(server.requests) <= 3
    assert str(caught.value) == (
        "the judge's server refuses the key (status 401): set RLHF_JUDGE_KEY to a right one. 0 of 30 questions are answered "
        "and remembered: the same command asks the rest"
    )


def test_what_is_under_way_when_another_fails_is_kept(make_client: Make, tmp_path: Path) -> None:
    """One fails while another is being answered."""
    failed, under_way = threading.Event(), threading.Event()

    def rule(request: Request) -> Reply:
        if request.question == QUESTIONS[0]:
            under_way.wait(PATIENCE)
            failed.set()
            return complains(404)
        under_way.set()
        failed.wait(PATIENCE)
        return says("A")

    store = Store(tmp_path)
    with serve(rule) as server:
        client = make_client(server, concurrency=2)
        with pytest.raises(UserError, match="1 of 2 questions are answered and remembered"):
            list(ask_all(client, QUESTIONS[:2], store))
    assert store.find(client.key(QUESTIONS[1])) is not None


def test_some_refused_questions_are_answers_too_and_are_asked_again(make_client: Make, tmp_path: Path) -> None:
    store = Store(tmp_path)
    with serve(lambda request: complains(400, "filtered") if "7" in request.question else says("A")) as server:
        for asked in (30, 33):
            found = {one.question: one.answer for one in ask_all(make_client(server), QUESTIONS, store)}
            assert len(server.requests) == asked
    refused = {question: answer.refusal for question, answer in found.items() if answer.text is None}
    assert refused == dict.fromkeys(["question 7 ?", "question 17 ?", "question 27 ?"], "status 400: filtered")


@pytest.mark.parametrize("count", [3, 30])
def test_a_server_that_refuses_all_questions_is_not_asked_them_all(make_client: Make, tmp_path: Path, count: int) -> None:
    with serve(lambda request: complains(400, "unknown parameter")) as server:
        with pytest.raises(UserError, match="refuses every question: status 400: unknown parameter"):
            list(ask_all(make_client(server, concurrency=2), QUESTIONS[:count], Store(tmp_path)))
        assert len(server.requests) <= REFUSED_AT_FIRST + 2


SCRIPT = """
import json, sys
from pathlib import Path
from rlhf.config import Endpoint
from rlhf.runtime.endpoint.address import address_from_environment
from rlhf.runtime.endpoint.asking import ask_all
from rlhf.runtime.endpoint.client import client_of
from rlhf.runtime.endpoint.store import Store

settings, questions, folder = json.loads(sys.argv[1])
for one in ask_all(client_of(address_from_environment(), Endpoint(**settings)), questions, Store(Path(folder))):
    print(one.question, flush=True)
"""


def test_after_a_kill_only_the_rest_is_asked(make_client: Make, tmp_path: Path) -> None:
    """The process is killed when the server holds the eleventh request."""
    held = threading.Event()

    def rule(request: Request) -> Reply:
        if request.number == 11:
            held.set()
            return Reply(hang=True)
        return echo(request)

    arguments = json.dumps([SETTINGS | {"concurrency": 1}, QUESTIONS, str(tmp_path)])
    with serve(rule) as server:
        environment = os.environ | {"RLHF_JUDGE_URL": server.url, "RLHF_JUDGE_KEY": KEY}
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert held.wait(PATIENCE)
        process.send_signal(signal.SIGKILL)
        said, complained = process.communicate(timeout=PATIENCE)
        found = list(ask_all(make_client(server), QUESTIONS, Store(tmp_path)))
    assert len(found) == len(QUESTIONS)
    assert sum(one.remembered for one in found) == 10
    assert len(server.requests) == 11 + 20
    assert KEY.encode() not in said + complained
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".json"]
