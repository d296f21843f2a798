"""A judge's verdicts become rankings: one behind a real server on loopback, and one in a folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from rlhf.errors import UserError
from rlhf.labeling.judge import label_by_judge
from rlhf.models.policy import save_policy
from rlhf.records import Ranking, Responses
from rlhf.runtime.run import Run
from tests.labeling.conftest import ROOT
from tests.labeling.records import answered
from tests.loopback import KEY, Reply, Request, Server, complains, says, serve
from tests.models.tiny_models import bigram_policy, words_tokenizer

Make = Callable[..., Run]
TEMPLATE = f"labeler.template={ROOT / 'conf' / 'labeler' / 'judge.jinja'}"
THERE = ("labeler=judge", "endpoint.model=wise-judge", TEMPLATE)
DRAWN = [
    answered(["short", "a longer one", "the longest of them all", "short"], "why ?"),
    answered(["same", "same", "same", "same"], "what ?"),
    answered(["好", "这个更长", "谁 ?", "第四个回答最长"], "谁 ?"),
]
RANKS = [(2, 1, 0, 2), (0, 0, 0, 0), (3, 1, 2, 0)]  # by length


def longer(request: Request) -> Reply:
    """Prefers the longer response, and says why."""
    a, b = (request.response(letter) for letter in "ab")
    verdict = "tie" if len(a) == len(b) else "A" if len(a) > len(b) else "B"
    return says(f"I compared A and B.\n\n**{verdict}**")


def label(run: Run, server: Server, monkeypatch: pytest.MonkeyPatch, drawn: Sequence[Responses] = DRAWN) -> list[Ranking]:
    monkeypatch.setenv("RLHF_JUDGE_URL", server.url)
    monkeypatch.setenv("RLHF_JUDGE_KEY", KEY)
    rankings, figures = label_by_judge(run, drawn)
    (run.output / "figures.json").write_text(json.dumps(figures))
    return rankings


def figures_of(run: Run) -> dict[str, float]:
    return dict(json.loads((run.output / "figures.json").read_text())["judge"])


def verdicts_of(run: Run) -> list[dict[str, str]]:
    return [json.loads(line) for line in (run.output / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()]


def test_rankings_follow_the_verdicts_and_every_verdict_is_written_down(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(*THERE)
    with serve(longer) as server:
        rankings = label(run, server, monkeypatch)
    assert [ranking.ranks for ranking in rankings] == RANKS
    assert [ranking.responses for ranking in rankings] == [drawn.responses for drawn in DRAWN]
    assert {(ranking.labeler, ranking.settings["model"]) for ranking in rankings} == {("judge", "wise-judge")}
    assert figures_of(run) == {
        "pairs": 3 + 0 + 6,
        "questions": 18,
        "ties_said": 0,
        "parse_failures": 0,
        "refused": 0,
        "position_inconsistent": 0,
        "position_inconsistent_share": 0.0,
        "said_first": 0.5,
        "cut_off": 0,
        "prompt_tokens": 18 * 7,
        "answer_tokens": 18 * 3,
    }
    written = verdicts_of(run)
    assert len(written) == 18
    for row in written:
        assert row["verdict"] == ("A" if len(row["response_a"]) > len(row["response_b"]) else "B")
        assert row["answer"].endswith(f"**{row['verdict']}**")
    asked = [request.body for request in server.requests]
    assert any("<response_a>\\n这个更长\\n</response_a>".encode() in body for body in asked)


def test_the_same_bytes_whatever_the_concurrency_and_in_whatever_order_answers_come(
    make_run: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unevenly(request: Request) -> Reply:
        time.sleep(0.02 * (request.number % 3))
        return complains(503, Retry_After="0") if request.number % 5 == 0 else longer(request)

    made = []
    for concurrency in (1, 8):
        monkeypatch.setenv("RLHF_JUDGE_CACHE", str(tmp_path / f"cache_{concurrency}"))
        run = make_run(*THERE, f"endpoint.concurrency={concurrency}")
        with serve(unevenly) as server:
            rankings = label(run, server, monkeypatch)
        made.append((rankings, (run.output / "verdicts.jsonl").read_bytes(), figures_of(run)))
    assert made[0] == made[1]


def test_a_second_run_asks_nothing_and_says_the_same(
    make_run: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = make_run(*THERE), make_run(*THERE)
    with serve(longer) as server:
        rankings = label(first, server, monkeypatch)
        assert (
            "label remembered 0 answers and sent 18 requests (0 of them tries anew), for 180 tokens"
            in capsys.readouterr().out
        )
        assert label(second, server, monkeypatch) == rankings
        assert len(server.requests) == 18
    assert "label remembered 18 answers and sent 0 requests (0 of them tries anew), for 0 tokens" in capsys.readouterr().out
    for name in ("verdicts.jsonl", "figures.json"):
        assert (first.output / name).read_bytes() == (second.output / name).read_bytes()


def test_another_template_is_another_question(make_run: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (ROOT / "conf" / "labeler" / "judge.jinja").read_text(encoding="utf-8")
    (tmp_path / "mine.jinja").write_text(text.replace("You compare", "Compare"), encoding="utf-8")
    with serve(longer) as server:
        usual = label(make_run(*THERE), server, monkeypatch)
        mine = label(make_run(*THERE, f"labeler.template={tmp_path / 'mine.jinja'}"), server, monkeypatch)
        assert len(server.requests) == 2 * 18
    assert [ranking.ranks for ranking in mine] == [ranking.ranks for ranking in usual]
    assert mine[0].settings != usual[0].settings


def test_a_judge_that_always_names_the_first_ties_everything(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(*THERE)
    with serve(lambda request: says("A")) as server:
        rankings = label(run, server, monkeypatch)
    assert not any(ranking.pairs() for ranking in rankings)
    found = figures_of(run)
    assert (found["position_inconsistent"], found["position_inconsistent_share"], found["said_first"]) == (9, 1.0, 1.0)


def test_what_cannot_be_read_ties_and_is_counted(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the two orders is enough to lose the pair: "short" neither wins nor loses, and what loses is below it."""
    run = make_run(*THERE)
    with serve(lambda request: says("Hm.") if request.response("a") == "short" else longer(request)) as server:
        rankings = label(run, server, monkeypatch)
    found = figures_of(run)
    assert (found["parse_failures"], found["position_inconsistent"]) == (2, 0)
    assert [ranking.ranks for ranking in rankings] == [(1, 2, 0, 1), *RANKS[1:]]


def test_an_answer_that_was_cut_off_is_no_verdict_whatever_stands_where_it_ends(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As remembered answers say it too."""
    for _ in range(2):
        run = make_run(*THERE)
        with serve(lambda request: says("First of all,\nA", finish_reason="length")) as server:
            rankings = label(run, server, monkeypatch)
        assert not any(ranking.pairs() for ranking in rankings)
        found = figures_of(run)
        assert (found["cut_off"], found["parse_failures"], found["position_inconsistent"]) == (18, 18, 0)
        assert {(row["verdict"], row["answer"]) for row in verdicts_of(run)} == {("unreadable", "First of all,\nA")}
    assert not server.requests


def test_a_refused_question_ties_and_is_counted_and_said(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(*THERE)
    with serve(lambda request: complains(400, "filtered") if "好" in request.question else longer(request)) as server:
        rankings = label(run, server, monkeypatch)
    assert figures_of(run)["refused"] == 6
    assert rankings[2].ranks == (1, 1, 2, 0)  # wins less losses: none, 1 - 1, -2, 2
    assert {row["answer"] for row in verdicts_of(run) if row["verdict"] == "refused"} == {"status 400: filtered"}


def test_fewer_pairs_are_fewer_questions(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(*THERE, "labeler.pairs_per_prompt=3")
    with serve(longer) as server:
        label(run, server, monkeypatch)
        assert len(server.requests) == 2 * (3 + 0 + 3)


def test_the_key_and_the_address_are_in_no_file_and_in_no_output(
    make_run: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serve(lambda request: longer(request) if request.number < 6 else complains(401, f"not {KEY}")) as server:
        with pytest.raises(UserError) as caught:
            label(make_run(*THERE), server, monkeypatch)
        secrets = [KEY, f"127.0.0.1:{server.server_port}"]
    files = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 5
    said = capfd.readouterr()
    for text in (*files, said.out, said.err, str(caught.value)):
        assert not any(secret in text for secret in secrets)


def test_a_key_that_others_can_read_on_its_way_is_said(
    make_run: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is asked: there is nothing to compare."""
    monkeypatch.setenv("RLHF_JUDGE_KEY", KEY)
    for url, said in {"http://judge.example/v1": True, "https://judge.example/v1": False}.items():
        monkeypatch.setenv("RLHF_JUDGE_URL", url)
        label_by_judge(make_run(*THERE), DRAWN[1:2])
        out = capsys.readouterr().out
        assert ("sends the key (RLHF_JUDGE_KEY) over http:// to another machine" in out) is said
        assert KEY not in out
        assert "judge.example" not in out


# --- one that lies here ------------------------------------------------------------------------------------------------


def judge_folder(folder: Path, a: float, b: float) -> Path:
    """A judge that, whatever it reads, answers A and B with these logits."""
    tokenizer = words_tokenizer("A B who is right ? this one that")
    tokenizer = tokenizer if len(tokenizer) % 2 == 0 else words_tokenizer("A B who is right ? this one that then")
    vocabulary = tokenizer.get_vocab()
    table = torch.zeros(len(tokenizer), len(tokenizer))
    table[vocabulary["Assistant:"], vocabulary["A"]] = a
    table[vocabulary["Assistant:"], vocabulary["B"]] = b
    save_policy(bigram_policy(table), tokenizer, folder, 9)
    (folder / "mine.jinja").write_text(
        "{{ prompt[0].content }} this {{ response_a }} that {{ response_b }} ?", encoding="utf-8"
    )
    return folder


@pytest.mark.parametrize(("a", "b", "first", "ties"), [(2.0, 1.0, 1.0, 0), (1.0, 2.0, 0.0, 0), (1.0, 1.0, None, 18)])
def test_a_judge_in_a_folder_that_knows_places_only_ties_everything(
    make_run: Make, tmp_path: Path, a: float, b: float, first: float | None, ties: int
) -> None:
    folder = judge_folder(tmp_path / "judge", a, b)
    run = make_run("labeler=judge", f"labeler.path={folder}", f"labeler.template={folder / 'mine.jinja'}")
    rankings, figures = label_by_judge(run, DRAWN)
    assert not any(ranking.pairs() for ranking in rankings)
    found = figures["judge"]
    assert (found["questions"], found["ties_said"], found.get("said_first")) == (18, ties, first)
    assert rankings[0].settings["model"] == "judge"
    assert {row["answer"] for row in verdicts_of(run)} == {None}


def test_a_question_that_is_too_long_for_it_ties_and_is_counted(make_run: Make, tmp_path: Path) -> None:
    folder = judge_folder(tmp_path / "judge", 2.0, 1.0)
    run = make_run("labeler=judge", f"labeler.path={folder}", f"labeler.template={folder / 'mine.jinja'}")
    long = answered(["this", "that " * 200])
    _, figures = label_by_judge(run, [*DRAWN, long])
    assert (figures["judge"]["too_long"], figures["judge"]["parse_failures"]) == (2, 2)
    with pytest.raises(
        UserError, match=r"^label: none of the 2 questions fits the context of .*/judge, \d+ tokens: choose "
    ):
        label_by_judge(run, [long])
