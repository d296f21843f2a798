"""A language model as judge: one that lies here, or one of a server. Its verdicts become rankings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rlhf.data.files import write_records
from rlhf.data.question import fill, load_template
from rlhf.errors import UserError
from rlhf.labeling.verdicts import Judged, Pair, Said, Verdict, judge_figures, pairs_of, ranks_of, read_verdict, winner_of
from rlhf.models.judge import load_judge, log_odds
from rlhf.models.policy import context_of
from rlhf.records import Messages, Ranking, Response, Responses
from rlhf.runtime.endpoint.address import KEY, address_from_environment
from rlhf.runtime.endpoint.asking import Answered, ask_all
from rlhf.runtime.endpoint.client import Client, client_of
from rlhf.runtime.endpoint.store import Answer, store_of
from rlhf.runtime.hashes import md5_of
from rlhf.runtime.run import Row, Run

LABELER = "judge"
SAID = ("pairs", "position_inconsistent", "ties_said", "parse_failures", "too_long", "cut_off", "refused")  # on the screen
QUESTIONS_A_PART = 256  # of a model that lies here: after so many there is something to see


def label_by_judge(run: Run, responses: Sequence[Responses]) -> tuple[list[Ranking], dict[str, Any]]:
    """A ranking a prompt, and what there is to say of the judge; every verdict goes into verdicts.jsonl.

    The rankings depend on the verdicts alone: not on the order in which they came.
    """
    labeler = run.config.labeler
    template = load_template(labeler.template)
    pairs = pairs_of(responses, labeler.pairs_per_prompt, run.seed("pairs"))
    shown = [_as_shown(responses, order) for pair in pairs for order in (pair, pair.other_way_round())]
    questions = [fill(template, labeler.template, prompt, a.text, b.text) for prompt, a, b in shown]
    said, used = _ask_here(run, questions) if labeler.is_folder else _ask_there(run, questions)
    write_records(run.output / "verdicts.jsonl", [Judged(*asked, one) for asked, one in zip(shown, said, strict=True)])

    both = list(zip(said[0::2], said[1::2], strict=True))
    ranks = ranks_of(responses, pairs, [winner_of(forward.verdict, backward.verdict) for forward, backward in both])
    settings = {
        "model": Path(labeler.path).name if labeler.is_folder else run.config.endpoint.model,
        "template": md5_of(Path(labeler.template)),
    }
    rankings = [
        Ranking(drawn.prompt, drawn.responses, places, drawn.split, LABELER, settings)
        for drawn, places in zip(responses, ranks, strict=True)
    ]
    figures = judge_figures(both) | used
    run.say("has the judge's verdicts: " + ", ".join(f"{name} {figures[name]:g}" for name in SAID if name in figures))
    return rankings, {"judge": figures}


def _as_shown(responses: Sequence[Responses], order: Pair) -> tuple[Messages, Response, Response]:
    drawn = responses[order.row]
    return drawn.prompt, drawn.responses[order.first], drawn.responses[order.second]


def _ask_here(run: Run, questions: Sequence[str]) -> tuple[list[Said], dict[str, int]]:
    """The verdicts of a model in a folder: whichever of A and B is the likelier answer."""
    judge, tokenizer = load_judge(run.config.labeler.path, run.device, run.config.engine)
    odds: list[float | None] = []

    def parts() -> Iterator[Row]:
        for start in range(0, len(questions), QUESTIONS_A_PART):
            some = questions[start : start + QUESTIONS_A_PART]
            odds.extend(log_odds(judge, tokenizer, some, run.config.engine.tokens_per_micro_batch))
            yield {"step": len(odds)}

    for _ in run.show(parts(), len(questions)):
        pass
    too_long = odds.count(None)
    if questions and too_long == len(questions):
        raise UserError(
            f"label: none of the {too_long} questions fits the context of {run.config.labeler.path}, "
            f"{context_of(judge, max_tokens=0)} tokens: choose a judge with a longer one, a shorter labeler.template, or "
            "shorter data"
        )
    return [Said(_by_odds(one)) for one in odds], {"too_long": too_long}


def _by_odds(odds: float | None) -> Verdict:
    if odds is None:
        return "unreadable"
    return "A" if odds > 0 else "B" if odds < 0 else "tie"


def _ask_there(run: Run, questions: Sequence[str]) -> tuple[list[Said], dict[str, int]]:
    """The verdicts of a server's model, each question asked once in all: what it answered before is remembered."""
    address = address_from_environment()
    if address.shows_key:
        run.say(f"sends the key ({KEY}) over http:// to another machine, for all on its way to read: https:// hides it")
    client, distinct = client_of(address, run.config.endpoint), len(set(questions))
    answered: dict[str, Answered] = {}
    try:
        with closing(ask_all(client, questions, store_of(run.root))) as asked:
            for _ in run.show(_gather(asked, client, answered), distinct):
                pass
    finally:
        _tell(run, client, remembered=sum(one.remembered for one in answered.values()))
    answers = {question: one.answer for question, one in answered.items()}
    used = {
        "cut_off": sum(answers[question].cut_off for question in questions),
        "prompt_tokens": sum(answer.prompt_tokens for answer in answers.values()),
        "answer_tokens": sum(answer.answer_tokens for answer in answers.values()),
    }
    return [_said(answers[question]) for question in questions], used


def _gather(asked: Iterable[Answered], client: Client, answered: dict[str, Answered]) -> Iterator[Row]:
    for one in asked:
        answered[one.question] = one
        yield {"step": len(answered), "requests": client.budget.requests, "retries": client.budget.retries}


def _tell(run: Run, client: Client, remembered: int) -> None:
    """What this run has used of the server: that depends on what was remembered, and so is no result of the stage."""
    used = client.budget
    run.say(
        f"remembered {remembered} answers and sent {used.requests} requests ({used.retries} of them tries anew), for "
        f"{used.tokens} tokens"
    )
    told = {"remembered": remembered, "requests": used.requests, "retries": used.retries, "tokens": used.tokens}
    run.tracker.log_metrics({f"{run.name}/endpoint/{name}": float(number) for name, number in told.items()}, 0)


def _said(answer: Answer) -> Said:
    """An answer that was cut off has no last line, whatever stands where it ends."""
    if answer.text is None:
        return Said("refused", answer.refusal)
    return Said("unreadable" if answer.cut_off else read_verdict(answer.text), answer.text)
