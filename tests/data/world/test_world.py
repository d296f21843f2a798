"""What the world promises the pipeline: balance, determinism, lengths, a closed vocabulary, no easy tricks."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from math import exp
from pathlib import Path

import pytest

from rlhf.data.world import World, load_world
from rlhf.errors import UserError

TABLE = Path(__file__).parents[3] / "data" / "world" / "english.yaml"
WORLD = load_world(TABLE)
PROMPTS = WORLD.prompts(8000, seed=0)


def test_prompts_are_distinct_and_balanced() -> None:
    assert len(set(PROMPTS)) == 8000
    counts = Counter(map(WORLD.family, PROMPTS))
    assert set(counts) == set(WORLD.table.families)
    assert max(counts.values()) <= 0.2 * 8000
    assert min(counts.values()) >= 0.05 * 8000


def test_more_prompts_begin_with_fewer() -> None:
    assert WORLD.prompts(300, seed=0) == PROMPTS[:300]
    assert WORLD.prompts(300, seed=1) != PROMPTS[:300]


def test_too_many_prompts_are_refused() -> None:
    with pytest.raises(UserError, match=r"data.prompts \(1000000\) is more than the \d+ prompts of this world"):
        WORLD.prompts(1_000_000, seed=0)


def test_texts_are_words_of_the_vocabulary_and_not_too_long() -> None:
    vocabulary = set(WORLD.vocabulary())
    assert len(vocabulary) < 480
    answers = [answer for _, answer in WORLD.demonstrations(PROMPTS, 2000, seed=1)]
    documents = WORLD.corpus(2000, seed=2)
    for text in (*PROMPTS, *answers, *documents):
        words = text.split()
        assert text == " ".join(words).lower()
        assert vocabulary.issuperset(words), set(words) - vocabulary
    assert max(len(prompt.split()) for prompt in PROMPTS) <= 16
    assert max(len(answer.split()) for answer in answers) <= 36


def test_demonstrations_take_the_prompts_in_turn() -> None:
    asked = Counter(prompt for prompt, _ in WORLD.demonstrations(PROMPTS[:50], 125, seed=0))
    assert set(asked) == set(PROMPTS[:50])
    assert set(asked.values()) == {2, 3}


def _digest(world: World) -> str:
    prompts = world.prompts(200, seed=5)
    return "\n".join([*prompts, *(answer for _, answer in world.demonstrations(prompts, 200, 6)), *world.corpus(200, 7)])


def test_another_process_writes_the_same_texts() -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); from test_world import _digest; "
        "from rlhf.data.world import load_world; print(_digest(load_world(Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, str(TABLE), str(Path(__file__).parent)]
    other = subprocess.run(command, env={"PYTHONHASHSEED": "123"}, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == _digest(WORLD)


def test_a_longer_answer_is_not_a_better_one() -> None:
    """People who prefer the longer of two demonstrations agree with noisy labels no better than a coin."""
    first, second = (dict(WORLD.demonstrations(PROMPTS, 8000, seed)) for seed in (1, 2))
    agrees, ceiling, pairs = 0.0, 0.0, 0
    for prompt in PROMPTS:
        a, b = first[prompt], second[prompt]
        difference = WORLD.rate(prompt, a).gold - WORLD.rate(prompt, b).gold
        a_wins = 1 / (1 + exp(-difference / 0.5))
        longer = len(a.split()) - len(b.split())
        agrees += 0.5 if longer == 0 else a_wins if longer > 0 else 1 - a_wins
        ceiling += max(a_wins, 1 - a_wins)
        pairs += 1
    assert agrees / pairs == pytest.approx(0.5, abs=0.03)
    assert ceiling / pairs > 0.85


def test_documents_follow_the_shares_of_the_table() -> None:
    documents = WORLD.corpus(5000, seed=0)
    ideas = sum(
        any(mark in text for mark in ("is a good idea .", "and that is nice .", "many people say")) for text in documents
    )
    assert ideas / 5000 == pytest.approx(0.08, abs=0.015)
