"""The stage `label` with a judge behind a real server on loopback, as a user would run it."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest

from rlhf.data.world import load_world
from tests.loopback import KEY, Reply, Request, complains, says, serve
from tests.pipeline.clone import ROOT, Clone, Done, contents
from tests.pipeline.conftest import SMOKE
from tests.pipeline.test_direct import results

JUDGE = ("labeler=judge", "endpoint.model=wise-judge", "label.prompts=12")


def label(clone: Clone, url: str, name: str, *more: str, code: int = 0) -> Done:
    arguments = (SMOKE, *JUDGE, *more, f"hydra.run.dir=runs/{name}")
    return clone.stage("label", *arguments, code=code, RLHF_JUDGE_URL=url, RLHF_JUDGE_KEY=KEY)


def test_a_judge_labels_goes_on_after_a_budget_and_leaves_no_trace_of_the_key(copy: Clone) -> None:
    """The judge has the world's own rater in mind, is busy now and then, and does not always say what is asked for."""
    world = load_world(ROOT / "data" / "world" / "english.yaml")
    before = contents(copy.artifact())

    def rule(request: Request) -> Reply:
        if request.number % 11 == 0:
            return complains(429, Retry_After="0")
        question = request.question.partition("<conversation>\nuser: ")[2].partition("\n</conversation>")[0]
        a, b = (world.rate(question, request.response(letter)).gold for letter in "ab")
        return says("tie" if a == b else f"Because.\nVerdict: {'A' if a > b else 'B'}")

    with serve(rule) as server:
        stopped = label(copy, server.url, "stopped", "endpoint.most_requests=50", code=1)
        assert "label: endpoint.most_requests (50) are used up. " in stopped.stderr
        assert len(server.requests) == 50
        first = label(copy, server.url, "first")
        asked = Counter(request.question for request in server.requests)
        tried = len(server.requests)
        again = label(copy, server.url, "again", "endpoint.concurrency=1")
        assert len(server.requests) == tried
        secrets = [KEY, f"127.0.0.1:{server.server_port}"]
    runs = copy.root / "runs"
    metrics = json.loads((runs / "first" / "metrics.json").read_text(encoding="utf-8"))
    found = metrics["judge"]
    assert len(asked) == found["questions"]
    assert tried == found["questions"] + tried // 11
    assert metrics["gold"]["agreement"] == metrics["gold"]["kappa"] == 1.0
    assert (found["parse_failures"], found["position_inconsistent"], found["said_first"]) == (0, 0, 0.5)
    told = results(runs / "first")
    assert told == results(runs / "again")
    assert set(told) == {"rankings.jsonl", "preferences.jsonl", "verdicts.jsonl", "metrics.json", "curve.csv"}
    assert contents(copy.artifact()) == before

    said = [text for done in (stopped, first, again) for text in (done.stdout, done.stderr)]
    written = [path.read_bytes() for path in copy.root.rglob("*") if path.is_file() and not path.is_symlink()]
    for secret in secrets:
        assert not any(secret in text for text in said)
        assert not any(secret.encode() in data for data in written)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("labeler=judge", "endpoint.model=m"), "label: RLHF_JUDGE_URL is not set: it says where the judge's server is"),
        (
            ("labeler=judge", "labeler.path=artifacts/sft/model"),
            "label: artifacts/sft/model: its tokenizer has no tokens for",
        ),
        (
            ("labeler=reward_model", "labeler.path=artifacts/sft/model"),
            "label: artifacts/sft/model: is no classifier: its config.json says ",
        ),
    ],
)
def test_a_labeler_that_cannot_label_says_so_in_one_message(shared: Clone, arguments: tuple[str, ...], message: str) -> None:
    (line,) = shared.stage("label", SMOKE, *arguments, code=1).stderr.splitlines()
    assert line.startswith(message)


def test_the_reward_model_of_this_run_can_label_and_another_learns_from_that(copy: Clone) -> None:
    chosen = ("labeler=reward_model", "labeler.path=artifacts/reward/model")
    copy.stage("label", SMOKE, *chosen, "hydra.run.dir=runs/by_scores")
    made = copy.root / "runs" / "by_scores"
    metrics = json.loads((made / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["gold"]["agreement"] > 0.5
    assert abs(metrics["reward_model"]["mean_score"]) < 1  # near the zero that it was given on SFT's responses
    shutil.copy(made / "rankings.jsonl", copy.artifact("label", "rankings.jsonl"))
    copy.stage("reward", SMOKE, *chosen, "hydra.run.dir=runs/pupil")
    learnt = json.loads((copy.root / "runs" / "pupil" / "metrics.json").read_text(encoding="utf-8"))["test"]
    assert "gold_accuracy" in learnt
    assert "noise_ceiling" not in learnt  # of the gold rater's labels, which these are not
