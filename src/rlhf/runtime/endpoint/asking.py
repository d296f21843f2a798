"""Asks a server many questions, several at once; nothing that was answered is lost, however it ends."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from rlhf.errors import UserError
from rlhf.runtime.endpoint.client import Client, Stopped
from rlhf.runtime.endpoint.store import Answer, Store

REFUSED_AT_FIRST = 10  # questions: a server that has answered none by then refuses the settings, not the questions


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with its answer, and whether that was remembered."""

    question: str
    answer: Answer
    remembered: bool


def ask_all(client: Client, questions: Sequence[str], store: Store) -> Generator[Answered, None, None]:
    """Every distinct question once, as answers come: those that are remembered first.

    Raises:
        UserError: it cannot go on; says how far it came. A request that is under way is waited for, and its answer kept.
    """
    distinct = list(dict.fromkeys(questions))
    known = {question: answer for question in distinct if (answer := store.find(client.key(question)))}
    yield from (Answered(question, answer, remembered=True) for question, answer in known.items())
    pool = ThreadPoolExecutor(client.settings.concurrency)
    asked = {pool.submit(_ask, client, question, store): question for question in distinct if question not in known}
    try:
        yield from _as_they_come(asked, bool(known))
    except (UserError, Stopped) as error:
        _end(client, pool)
        done = len(known) + sum(_is_answered(future) for future in asked)
        raise UserError(
            f"{_reason(error, asked)}. {done} of {len(distinct)} questions are answered and remembered: the same command "
            "asks the rest"
        ) from error
    finally:
        _end(client, pool)


def _ask(client: Client, question: str, store: Store) -> Answer:
    try:
        answer = client.ask(question)
        store.keep(client.key(question), answer)
    except UserError:
        client.stop.set()  # at once: what is wrong is wrong for all
        raise
    return answer


def _as_they_come(asked: dict[Future[Answer], str], any_answered: bool) -> Iterator[Answered]:
    refused = 0
    for future in as_completed(asked):
        answer = future.result()
        any_answered, refused = any_answered or answer.text is not None, refused + (answer.text is None)
        if not any_answered and refused == min(REFUSED_AT_FIRST, len(asked)):
            raise UserError(f"the judge's server refuses every question: {answer.refusal}")
        yield Answered(asked[future], answer, remembered=False)


def _reason(error: Exception, asked: Iterable[Future[Answer]]) -> Exception:
    """What went wrong first; those who were stopped for it may have been heard before."""
    failed = (future.exception() for future in asked if not future.cancelled())
    return error if isinstance(error, UserError) else next(one for one in failed if isinstance(one, UserError))


def _is_answered(future: Future[Answer]) -> bool:
    return not future.cancelled() and future.exception() is None and future.result().text is not None


def _end(client: Client, pool: ThreadPoolExecutor) -> None:
    """Lets those who wait give up, and waits for those who listen."""
    client.stop.set()
    pool.shutdown(wait=True, cancel_futures=True)
