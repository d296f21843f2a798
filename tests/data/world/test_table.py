"""A broken table stops with one line that names the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf.data.world import load_world
from rlhf.errors import UserError
from tests.data.world.conftest import TABLES

TABLE = TABLES["english"]


def _spoil(table: dict[str, Any], key: str, value: object) -> None:
    *path, last = [int(step) if step.isdigit() else step for step in key.split(".")]
    place: Any = table
    for step in path:
        place = place[step]
    place[last] = value


FAULTS = [
    ("gold.ramble", -1, r"gold\.ramble: .*greater than or equal to 0, not -1"),
    ("gold.weights.help", float("nan"), r"gold\.weights\.help: .*finite"),
    ("gold.rambel", 1, r"gold\.rambel: is no key of this table"),
    ("families.story.rates.help", 1.5, r"families\.story\.rates\.help: .*less than or equal to 1, not 1\.5"),
    ("families.story.honest", "fib", r"families\.story\.honest: .*'lie' or 'boast'"),
    ("lists.animals", [], r"lists\.animals"),
    ("lists.places", [True], r"lists\.places\.0: must be text \(put words such as no, yes and on in quotes\)"),
    ("lists.places", ["Paris"], r"lists\.places\.0: must be lower-case words with single spaces"),
    (
        "lists.animals",
        ["yak"],
        r"relations\.kind says nothing about 'yak', which families\.fact\.cases\.0\.slots\.kind needs",
    ),
    ("families.story.cases.0.slots.one", "beasts", r"slots\.one: no list is called 'beasts'"),
    ("families.fact.cases.0.slots.kind", "sort(animal)", r"slots\.kind: no relation is called 'sort'"),
    ("families.fact.cases.0.slots.kind", "kind(beast)", r"slots\.kind: 'kind\(beast\)' needs a slot 'beast' before it"),
    ("families.story.cases.0.prompts", ["write about a {tree} ."], r"prompts: 'write about a {tree} \.' has a slot 'tree'"),
    ("families.story.cases.0.prompts", ["{one} , {two} .", "{one} ."], r"'{one} \.' does not name 'two'"),
    ("families.story.cases.0.parts.0.right", ["a {one} and a {two}"], r"parts\.0: .* must be one sentence"),
    ("sentences.insults", ["you fool"], r"sentences\.insults: 'you fool' must be one sentence"),
    ("sentences.rambles", ["i like {gods} ."], r"sentences\.rambles: .* has a slot 'gods'"),
    ("corpus.forum", 0.5, r"corpus: .* add up to 0\.9; they must add up to 1"),
    ("corpus.fact_families", ["facts"], r"corpus\.fact_families: no family is called 'facts'"),
    ("max_answer_words", 20, r"parts: .* the longest answer has \d+ words, max_answer_words is 20"),
    ("max_prompt_words", 8, r"prompts: the longest has \d+ words, max_prompt_words is 8"),
    ("families.advice.cases.0.parts.0.harmful", [], r"advice\.cases\.0\.parts\.0 has no `harmful` texts"),
    ("families.poison.cases.0.parts.0.wrong", [], r"poison\.cases\.0\.parts\.0 cannot lie"),
    ("families.harmful.cases.0.prompts", ["how do i {crime} a {target} ?", "{target} {crime} ."], None),
    ("families.howto.cases.0.slots.task", "crimes", r"relations\.tool says nothing about 'rob'"),
]


@pytest.mark.parametrize(("key", "value", "message"), FAULTS)
def test_a_fault_is_named(tmp_path: Path, key: str, value: object, message: str | None) -> None:
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    _spoil(table, key, value)
    path = tmp_path / "world.yaml"
    path.write_text(yaml.safe_dump(table, sort_keys=False), encoding="utf-8")
    if message is None:
        load_world(path)
        return
    with pytest.raises(UserError, match=message) as caught:
        load_world(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lists.places", ["Paris"], r"lists\.places\.0: must be lower-case words with single spaces"),
        ("lists.animals", ["熊猫"], r"relations\.kind says nothing about '熊猫', which families\.fact"),
        (
            "families.story.cases.0.parts.0.right",
            ["有{one}和{two}"],
            r"parts\.0: '有{one}和{two}' must be one sentence, with",
        ),
        ("families.story.cases.0.parts.0.right", ["有{one}。有{two}。"], r"parts\.0: .* must be one sentence, with"),
        ("max_answer_words", 50, r"story\.cases\.0\.parts: .* the longest answer has 58 words, max_answer_words is 50"),
        ("max_prompt_words", 20, r"prompts: the longest has \d+ words, max_prompt_words is 20"),
    ],
)
def test_without_spaces_words_are_characters(tmp_path: Path, key: str, value: object, message: str) -> None:
    table = yaml.safe_load(TABLES["chinese"].read_text(encoding="utf-8"))
    _spoil(table, key, value)
    path = tmp_path / "world.yaml"
    path.write_text(yaml.safe_dump(table, sort_keys=False, allow_unicode=True), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_world(path)


def test_the_languages_are_judged_by_the_same_numbers() -> None:
    english, chinese = (load_world(TABLES[language]).table for language in ("english", "chinese"))
    words = {"unreadable_words": 0}
    assert english.gold.model_copy(update=words) == chinese.gold.model_copy(update=words)
    assert english.demonstrators == chinese.demonstrators
    assert english.corpus == chinese.corpus
    assert {name: (family.rates, family.honest, family.harm) for name, family in english.families.items()} == {
        name: (family.rates, family.honest, family.harm) for name, family in chinese.families.items()
    }


def test_a_prompt_with_two_readings_is_refused(tmp_path: Path) -> None:
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    table["families"]["fact"]["cases"][1]["prompts"].append("what is a {animal} ?")
    path = tmp_path / "world.yaml"
    path.write_text(yaml.safe_dump(table, sort_keys=False), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"fact\.cases\.1\.prompts: 'what is a {animal} \?' is read as another question, of fact"
    ):
        load_world(path)


@pytest.mark.parametrize("text", ["a: [", "just words", "", "\x00"])
def test_what_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "world.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"world\.yaml: "):
        load_world(path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the world's table"):
        load_world(tmp_path / "none.yaml")


def test_a_second_language_is_a_second_table(tmp_path: Path) -> None:
    """Every word is another one, and the world works: nothing of the first language is in the code."""
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    path = tmp_path / "world.yaml"
    path.write_text(yaml.safe_dump(_translated(table), sort_keys=False), encoding="utf-8")
    world, english = load_world(path), load_world(TABLE)
    prompts, originals = world.prompts(100, seed=1), english.prompts(100, seed=1)
    assert prompts == [_word_by_word(prompt) for prompt in originals]
    for prompt, original in zip(prompts, originals, strict=True):
        assert world.family(prompt) == english.family(original)
        assert world.rate(prompt, world.perfect_answer(prompt)).gold == 3.5
        answer = "you are a fool . also it is late now ."
        assert world.rate(prompt, _word_by_word(answer)) == english.rate(original, answer)


def _word_by_word(text: str) -> str:
    return " ".join(word if word in (".", "?", ",") or word.startswith("{") else f"{word}o" for word in text.split())


def _translated(table: dict[str, Any]) -> dict[str, Any]:
    def deep(value: Any) -> Any:
        if isinstance(value, str):
            return _word_by_word(value)
        if isinstance(value, list):
            return [deep(item) for item in value]
        return value

    def case(texts: dict[str, Any]) -> dict[str, Any]:
        parts = [{version: deep(sentences) for version, sentences in part.items()} for part in texts["parts"]]
        return texts | {"prompts": deep(texts["prompts"]), "parts": parts}

    return table | {
        "sentences": {name: deep(texts) for name, texts in table["sentences"].items()},
        "lists": {name: deep(words) for name, words in table["lists"].items()},
        "relations": {name: {deep(k): deep(v) for k, v in facts.items()} for name, facts in table["relations"].items()},
        "families": {
            name: family | {"cases": [case(texts) for texts in family["cases"]]}
            for name, family in table["families"].items()
        },
    }
