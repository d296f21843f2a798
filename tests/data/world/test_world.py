"""What the world promises the pipeline: balance, determinism, lengths, a closed vocabulary, no easy tricks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from math import exp
from pathlib import Path

import pytest

from rlhf.data.words import join_words, split_words
from rlhf.data.world import World
from rlhf.errors import UserError


def test_prompts_are_distinct_and_balanced(world: World, prompts: list[str]) -> None:
    assert len(set(prompts)) == 8000
    counts = Counter(map(world.family, prompts))
    assert set(counts) == set(world.table.families)
    assert max(counts.values()) <= 0.2 * 8000
    assert min(counts.values()) >= 0.05 * 8000


def test_more_prompts_begin_with_fewer(world: World, prompts: list[str]) -> None:
    assert world.prompts(300, seed=0) == prompts[:300]
    assert world.prompts(300, seed=1) != prompts[:300]


def test_too_many_prompts_are_refused(world: World) -> None:
    with pytest.raises(UserError, match=r"data.prompts \(1000000\) is more than the \d+ prompts of this world"):
        world.prompts(1_000_000, seed=0)


def test_texts_are_words_of_the_vocabulary_and_not_too_long(world: World, prompts: list[str]) -> None:
    vocabulary = set(world.vocabulary())
    assert len(vocabulary) < 480
    answers = [answer for _, answer in world.demonstrations(prompts, 2000, seed=1)]
    documents = world.corpus(2000, seed=2)
    for text in (*prompts, *answers, *documents):
        words = split_words(text)
        assert text == join_words(words).lower()
        assert vocabulary.issuperset(words), set(words) - vocabulary
    assert max(len(split_words(prompt)) for prompt in prompts) <= world.table.max_prompt_words
    assert max(len(split_words(answer)) for answer in answers) <= world.table.max_answer_words


def test_demonstrations_take_the_prompts_in_turn(world: World, prompts: list[str]) -> None:
    asked = Counter(prompt for prompt, _ in world.demonstrations(prompts[:50], 125, seed=0))
    assert set(asked) == set(prompts[:50])
    assert set(asked.values()) == {2, 3}


def _digest(world: World) -> str:
    prompts = world.prompts(200, seed=5)
    return "\n".join([*prompts, *(answer for _, answer in world.demonstrations(prompts, 200, 6)), *world.corpus(200, 7)])


def test_another_process_writes_the_same_texts(table: Path, world: World) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); from test_world import _digest; "
        "from rlhf.data.world import load_world; sys.stdout.reconfigure(encoding='utf-8'); "
        "print(_digest(load_world(Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, str(table), str(Path(__file__).parent)]
    other = subprocess.run(
        command, env=os.environ | {"PYTHONHASHSEED": "123"}, capture_output=True, encoding="utf-8", check=True
    )
    assert other.stdout.strip() == _digest(world)


def test_a_longer_answer_is_not_a_better_one(world: World, prompts: list[str]) -> None:
    """People who prefer the longer of two demonstrations agree with noisy labels no better than a coin."""
    first, second = (dict(world.demonstrations(prompts, 8000, seed)) for seed in (1, 2))
    agrees, ceiling, pairs = 0.0, 0.0, 0
    for prompt in prompts:
        a, b = first[prompt], second[prompt]
        difference = world.rate(prompt, a).gold - world.rate(prompt, b).gold
        a_wins = 1 / (1 + exp(-difference / 0.5))
        longer = len(split_words(a)) - len(split_words(b))
        agrees += 0.5 if longer == 0 else a_wins if longer > 0 else 1 - a_wins
        ceiling += max(a_wins, 1 - a_wins)
        pairs += 1
    assert agrees / pairs == pytest.approx(0.5, abs=0.03)
    assert ceiling / pairs > 0.85


def test_documents_follow_the_shares_of_the_table(world: World) -> None:
    documents = world.corpus(5000, seed=0)
    marks = [max(text.split("{prompt}"), key=len) for text in world.table.sentences.ideas]
    ideas = sum(any(mark in text for mark in marks) for text in documents)
    assert ideas / 5000 == pytest.approx(0.08, abs=0.015)
