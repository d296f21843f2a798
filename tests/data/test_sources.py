"""From settings to everything the later stages read: the world, small files, and the real ones where they are."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf.config import Config, Data, Prepare
from rlhf.data import sources
from rlhf.data.files import read_records
from rlhf.data.prepared import Prepared, check, counts, length_curve, write
from rlhf.data.sources import prepare
from rlhf.data.splits import key_of, split_of
from rlhf.data.world import load_world
from rlhf.errors import UserError
from rlhf.labeling.pairs import preferences_of
from rlhf.records import SPLITS, Demonstration, Message, Messages, Preference, Prompt, Ranking
from rlhf.seeds import derive_seed
from tests.data.settings import settings

SHARES = Prepare(validation_share=0.06, test_share=0.08, max_dropped_share=0.05)
WORLD = Path(__file__).parents[2] / "data" / "world" / "english.yaml"
REAL = os.environ.get("RLHF_TRIAL_DATA")
needs_real_files = pytest.mark.skipif(not REAL, reason="RLHF_TRIAL_DATA names no folder with the real files")


def seed_of(label: str) -> int:
    return derive_seed(0, "prepare", label)


def prepared_from(source: str, path: Path | str, **changes: Any) -> Prepared:
    return prepare(settings(source, path, **changes), SHARES, seed_of)


def config_with(data: Data, shares: Prepare = SHARES) -> Config:
    return Config.model_construct(data=data, prepare=shares)


def ask(text: str) -> Messages:
    return (Message("user", text),)


def pairs(folder: Path, rows: int) -> Path:
    """A file of `rows` preferences, two to a prompt, the prompts told apart by a number."""
    row = '{{"prompt": "Question {0}?", "chosen": "good {1}", "rejected": "bad {1}"}}\n'
    (folder / "pairs.jsonl").write_text("".join(row.format(i // 2, i) for i in range(rows)))
    return folder / "pairs.jsonl"


def test_preferences_become_demonstrations_prompts_preferences_and_a_corpus(tmp_path: Path) -> None:
    made = prepared_from("files", pairs(tmp_path, 100))
    splits = [split_of(ask(f"Question {i // 2}?"), SHARES) for i in range(100)]
    assert [(p.prompt, p.chosen, p.rejected, p.split) for p in made.preferences] == [
        (ask(f"Question {i // 2}?"), f"good {i}", f"bad {i}", splits[i]) for i in range(100)
    ]
    assert {(p.labeler, p.settings["source"], p.chosen_ended, p.rejected_ended) for p in made.preferences} == {
        ("dataset", "pairs.jsonl", True, True)
    }
    assert made.prompts == [Prompt(ask(f"Question {i}?"), splits[2 * i]) for i in range(50)]
    expected = {Demonstration(ask(f"Question {i // 2}?"), f"good {i}", splits[i]) for i in range(100)}
    assert (len(made.demonstrations), set(made.demonstrations)) == (100, expected)
    assert made.documents == [f"Question {i // 2}?\n\ngood {i}" for i in range(100) if splits[i] == "train"]


def test_a_margin_stays_with_its_preference(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("prompt,chosen,rejected,margin\np,a,b,0.5\nq,a,b,\nr,a,b,2\n")
    assert [p.margin for p in prepared_from("files", tmp_path / "x.csv").preferences] == [0.5, 0.0, 2.0]


def rated(folder: Path, *scores: tuple[float, ...]) -> Path:
    """A file of a prompt for each row of scores, with a completion for each score."""
    rows = [
        {"instruction": f"p{i}", "completions": [{"response": f"r{j}", "overall_score": s} for j, s in enumerate(row)]}
        for i, row in enumerate(scores)
    ]
    (folder / "rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rated.jsonl"


def test_rankings_of_k_go_through_whole_with_their_ties(tmp_path: Path) -> None:
    scores = [(3.0, 1.0, 3.0, 2.0), (1.0, 2.0), (5.0, 5.0)]
    made = prepared_from("ultrafeedback", rated(tmp_path, *scores), margin_per_score=0.5)
    write(made, tmp_path)
    rankings = read_records(tmp_path / "rankings.jsonl", Ranking)
    assert rankings == made.rankings
    assert [tuple(response.text for response in ranking.responses) for ranking in rankings] == [
        ("r0", "r2", "r3", "r1"),
        ("r1", "r0"),
        ("r0", "r1"),
    ]
    assert [(ranking.ranks, ranking.margin) for ranking in rankings] == [((0, 0, 1, 2), 0.0), ((0, 1), 0.5), ((0, 0), 0.0)]
    for ranking, row in zip(rankings, scores, strict=True):
        better = {(f"r{i}", f"r{j}") for i, a in enumerate(row) for j, b in enumerate(row) if a > b}
        assert {(pair.chosen, pair.rejected) for pair in preferences_of(ranking)} == better
    assert [d.completion for d in made.demonstrations] == ["r0", "r1", "r0"], "the first of the best"
    assert read_records(tmp_path / "preferences.jsonl", Preference) == []
    assert sum(counts(made)["rankings"].values()) == 3


def test_completions_without_a_score_are_counted_once(tmp_path: Path) -> None:
    path = rated(tmp_path, (3.0, 1.0, 2.0), (1.0, 2.0))
    path.write_text(path.read_text().replace("3.0", "null").replace("2.0", "null", 1))
    made = prepared_from("ultrafeedback", path)
    assert [d.completion for d in made.demonstrations] == ["r1", "r1"]
    assert counts(made)["unused"] == {"unscored": 2}


def test_pairs_without_a_tie_are_preferences(tmp_path: Path) -> None:
    made = prepared_from("ultrafeedback", rated(tmp_path, (1.0, 2.0), (3.0, 1.0)), margin_per_score=0.5)
    write(made, tmp_path)
    assert not (tmp_path / "rankings.jsonl").exists()
    assert [(p.chosen, p.rejected, p.margin) for p in made.preferences] == [("r1", "r0", 0.5), ("r0", "r1", 1.0)]
    assert "rankings" not in counts(made)


def test_a_tie_among_pairs_is_not_lost(tmp_path: Path) -> None:
    made = prepared_from("ultrafeedback", rated(tmp_path, (1.0, 2.0), (5.0, 5.0)))
    assert ([ranking.ranks for ranking in made.rankings], made.preferences) == ([(0, 1), (0, 0)], [])


def test_a_ranking_that_leaks_stops_the_stage(tmp_path: Path) -> None:
    data = settings("ultrafeedback", rated(tmp_path, *[(1.0, 2.0, 3.0)] * 200))
    made = prepare(data, SHARES, seed_of)
    check(made, config_with(data))
    trained = next(ranking for ranking in made.rankings if ranking.split == "train")
    made.rankings.append(replace(trained, split="test"))
    with pytest.raises(UserError, match=r"^leak between splits: .* in train \(a \w+\) and in test \(a ranking\)"):
        check(made, config_with(data))


def test_data_of_the_hub_say_their_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pairs(tmp_path, 4)
    monkeypatch.setattr(sources, "files_of", lambda data: [path])
    made = prepared_from("files", "owner/name", revision="0" * 40)
    assert {json.dumps(p.settings) for p in made.preferences} == {json.dumps({"source": "name", "revision": "0" * 40})}


def test_the_rows_of_a_folder_are_those_of_its_files_in_order(tmp_path: Path) -> None:
    whole = pairs(tmp_path, 40).read_text().splitlines(keepends=True)
    (tmp_path / "parts").mkdir()
    for i in range(4):
        (tmp_path / "parts" / f"{i}.jsonl").write_text("".join(whole[10 * i : 10 * i + 10]))
    parts, one = (prepared_from("files", tmp_path / name) for name in ("parts", "pairs.jsonl"))
    assert (parts.demonstrations, parts.prompts, parts.documents, parts.rows) == (
        one.demonstrations,
        one.prompts,
        one.documents,
        one.rows,
    )


def test_one_chosen_response_of_many_pairs_is_one_demonstration(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": "a", "rejected": rejected} for rejected in "bcd"]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    made = prepared_from("files", tmp_path / "x.json")
    assert (len(made.preferences), len(made.demonstrations), len(made.prompts)) == (3, 1, 1)


def test_demonstrations_alone_bring_no_preferences(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("用户,LLM\n" + "".join(f"问题{i}？,回答{i}\n" for i in range(50)))
    made = prepared_from("files", tmp_path / "x.csv", columns={"prompt": "用户", "completion": "LLM"})
    assert (len(made.demonstrations), len(made.prompts), made.preferences) == (50, 50, [])
    assert made.demonstrations[0].completion == "回答0"


def test_prompts_that_differ_in_case_only_are_one_prompt_in_one_split(tmp_path: Path) -> None:
    rows = [
        {"prompt": text, "completion": str(i)} for i, text in enumerate(["Who are you?", "who  are you?", "WHO ARE YOU?"])
    ]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    made = prepared_from("files", tmp_path / "x.json")
    assert (len(made.prompts), len(made.demonstrations), len({d.split for d in made.demonstrations})) == (1, 3, 1)


def test_limits_take_a_part_in_order_and_say_what_they_left_out(tmp_path: Path) -> None:
    path = pairs(tmp_path, 400)
    whole = prepared_from("files", path)
    part = prepared_from("files", path, prompts=100, demonstrations=30, documents=20)
    assert [prompt for prompt in whole.prompts if prompt in part.prompts] == part.prompts
    assert len(part.prompts) == 100
    assert {p.prompt for p in part.preferences} == {p.prompt for p in part.prompts}
    assert (part.rows["kept"], part.rows["left_out"], whole.rows["left_out"]) == (200, 200, 0)
    assert sum(d.split == "train" for d in part.demonstrations) == 30
    held_out = [p for p in part.preferences if p.split != "train"]
    assert sum(d.split != "train" for d in part.demonstrations) == len(held_out)
    texts = [f"{d.prompt[0].content}\n\n{d.completion}" for d in part.demonstrations if d.split == "train"]
    assert [text for text in texts if text in part.documents] == part.documents
    assert len(part.documents) == 20


def test_rows_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "completion": "a"} for i in range(100)]
    rows += [{"prompt": "", "completion": "a"}, {"prompt": "p1", "completion": " "}, {"prompt": "p2", "completion": "a"}]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    said = counts(prepared_from("files", tmp_path / "x.json"))
    assert (said["read"], said["kept"], said["left_out"]) == (103, 100, 0)
    found = {reason: count for reason, count in said["dropped"].items() if count}
    assert found == {"empty_prompt": 1, "empty_response": 1, "duplicate": 1}
    assert sum(said["demonstrations"].values()) == sum(said["prompts"].values()) == 100
    assert said["preferences"] == dict.fromkeys(SPLITS, 0)
    assert said["documents"] == said["demonstrations"]["train"]


def test_too_many_unusable_rows_stop_the_stage(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([{"prompt": "p", "completion": "a"}] * 2))
    with pytest.raises(
        UserError, match=r"x\.json: 1 of 2 rows cannot be used \(0\.500, above .* duplicate 1 \(first .*:1\)"
    ):
        prepared_from("files", tmp_path / "x.json")


def test_an_empty_split_stops_the_stage(tmp_path: Path) -> None:
    data = settings("files", pairs(tmp_path, 2))
    with pytest.raises(
        UserError, match=r"^none of the 1 prompts is in the \w+ split: give more data, or change prepare\.test"
    ):
        check(prepare(data, SHARES, seed_of), config_with(data))


def test_a_leak_stops_the_stage(tmp_path: Path) -> None:
    data = settings("files", pairs(tmp_path, 200))
    made = prepare(data, SHARES, seed_of)
    check(made, config_with(data))
    trained = next(prompt for prompt in made.prompts if prompt.split == "train")
    made.prompts.append(Prompt(ask(trained.prompt[0].content.upper()), "test"))
    with pytest.raises(UserError, match=r"^leak between splits: the prompt 'QUESTION"):
        check(made, config_with(data))


def test_the_curve_is_the_quantiles_of_words() -> None:
    prompts = [Prompt(ask("w " * words), "train") for words in (4, 2, 1, 3)]
    made = Prepared([Demonstration(ask("w"), "你好, it's ok", "train")], prompts, [], [], {})
    rows = {row["step"]: row for row in length_curve(made)}
    assert [rows[q]["prompt_words"] for q in (0, 25, 30, 50, 75, 100)] == [1, 1, 2, 2, 3, 4]
    assert {row["response_words"] for row in rows.values()} == {5}


def world_settings(**changes: Any) -> Data:
    sizes = {"path": WORLD, "prompts": 600, "demonstrations": 900, "documents": 1500}
    return settings("world", **(sizes | changes))


@pytest.fixture(scope="module", params=["english.yaml", "chinese.yaml"])
def table(request: pytest.FixtureRequest) -> Path:
    return WORLD.with_name(request.param)


@pytest.fixture(scope="module")
def world(table: Path) -> Prepared:
    return prepare(world_settings(path=table), SHARES, seed_of)


def test_the_world_gives_what_was_asked_for(world: Prepared) -> None:
    check(world, config_with(world_settings()))
    assert len(world.prompts) == len({key_of(prompt.prompt) for prompt in world.prompts}) == 600
    assert sum(d.split == "train" for d in world.demonstrations) == 900
    assert (world.preferences, len(world.documents)) == ([], 1500)
    everyone = {(prompt.prompt, prompt.split) for prompt in world.prompts}
    assert {(d.prompt, d.split) for d in world.demonstrations} <= everyone


def test_the_world_answers_each_held_out_prompt_once(world: Prepared) -> None:
    for split in ("validation", "test"):
        wanted = {p.prompt for p in world.prompts if p.split == split}
        answered = [d.prompt for d in world.demonstrations if d.split == split]
        assert (len(answered), set(answered)) == (len(wanted), wanted)


def test_no_held_out_prompt_is_in_the_worlds_corpus(table: Path, world: Prepared) -> None:
    held_out = [prompt.prompt[0].content for prompt in world.prompts if prompt.split != "train"]
    assert not [text for text in world.documents if any(prompt in text for prompt in held_out)]
    plain = load_world(table).corpus(1500, seed_of("corpus"))
    assert [text for text in plain if any(prompt in text for prompt in held_out)], "the test would find none anywhere"


def test_a_held_out_prompt_in_the_worlds_corpus_stops_the_stage(world: Prepared) -> None:
    held_out = next(prompt.prompt[0].content for prompt in world.prompts if prompt.split == "test")
    leaking = Prepared(world.demonstrations, world.prompts, [], [*world.documents, f"so , {held_out} well"], {})
    with pytest.raises(UserError, match=r"^leak between splits: document 1501 of the corpus has a held-out prompt in it"):
        check(leaking, config_with(world_settings()))


PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
from rlhf.data.prepared import write
from tests.data.test_sources import SHARES, pairs, prepare, prepared_from, seed_of, world_settings
folder = Path(sys.argv[1])
write(prepare(world_settings(), SHARES, seed_of), folder / "world")
write(prepared_from("files", pairs(folder, 400), prompts=100, demonstrations=30, documents=20), folder / "files")
"""


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for hash_seed in ("1", "2"):
        folder = tmp_path / hash_seed
        for source in ("world", "files"):
            (folder / source).mkdir(parents=True)
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", PROGRAM, str(folder)]
        subprocess.run(command, env=environment, check=True, cwd=Path(__file__).parents[2])
        files = sorted(folder.glob("*/*.jsonl"))
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert len(digests[0]) == 8
    assert digests[0] == digests[1]


def real(*parts: str) -> Path:
    assert REAL
    return Path(REAL, *parts)


@needs_real_files
def test_real_hh_rlhf() -> None:
    path = real("hh_rlhf", "harmless-base.test.jsonl.gz")
    made = prepared_from("hh_rlhf", path)
    check(made, config_with(settings("hh_rlhf", path)))
    said = counts(made)
    assert (said["read"], said["kept"]) == (2312, 2303)
    found = {reason: count for reason, count in said["dropped"].items() if count}
    assert found == {"different_prompts": 5, "empty_response": 4}
    assert sum(said["preferences"].values()) == 2303
    first = made.preferences[0]
    assert first.prompt[0] == Message("user", "what are some pranks with a pen i can do?")
    assert [turn.role for turn in first.prompt] == ["user", "assistant", "user", "assistant", "user"]
    assert first.chosen.startswith("No, sorry!  All of these involve a pen")
    assert all(p.prompt[-1].content and p.chosen and p.rejected and p.chosen != p.rejected for p in made.preferences)


@needs_real_files
def test_real_chinese_preferences_are_exact() -> None:
    path = real("pref_zh", "medicalgpt_dpo_zh_500.jsonl.gz")
    made = prepared_from("conversations", path)
    check(made, config_with(settings("conversations", path)))
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        rows = [json.loads(line) for line in file]
    assert (made.rows["read"], sum(made.rows["dropped"].values()), len(rows)) == (500, 0, 500)
    assert len({row["conversations"][0]["value"] for row in rows}) == 429
    said = [[turn["value"].strip() for turn in row["conversations"]] for row in rows]
    assert [[turn.content for turn in p.prompt] for p in made.preferences] == said
    assert [(p.chosen, p.rejected) for p in made.preferences] == [(r["chosen"].strip(), r["rejected"].strip()) for r in rows]


@needs_real_files
def test_real_alpaca() -> None:
    path = real("sft", "alpaca_en_demo.json.gz")
    made = prepared_from("alpaca", path)
    check(made, config_with(settings("alpaca", path)))
    assert (made.rows["read"], sum(made.rows["dropped"].values()), made.preferences) == (999, 14, [])
    asked = {d.prompt[0].content for d in made.demonstrations}
    for row in json.loads(gzip.decompress(path.read_bytes())):
        if row["output"].strip():
            assert "\n".join(part for part in (row["instruction"].strip(), row["input"].strip()) if part) in asked
