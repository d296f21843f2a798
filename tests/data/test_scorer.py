"""A scorer is the user's own file: it is given what it is promised, and each fault in it is told on one line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from rlhf.data.scorer import load_scorer
from rlhf.errors import UserError
from rlhf.records import Message

PROMPT = (Message("system", "be brief"), Message("user", "how many\nwords ?"))
FILE = "judges/mine.py"


def written(root: Path, text: str, path: str = FILE) -> None:
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


def said(root: Path, text: str) -> str:
    """What is wrong with a file."""
    written(root, text)
    with pytest.raises(UserError) as caught:
        load_scorer(root, FILE).score(PROMPT, "two words")
    return str(caught.value)


def test_it_is_given_the_whole_conversation_and_the_text_of_the_response(tmp_path: Path) -> None:
    written(tmp_path, "seen = []\ndef score(prompt, response):\n    seen.append((prompt, response))\n    return len(seen)\n")
    scorer = load_scorer(tmp_path, FILE)
    assert scorer.score(PROMPT, "two words") == 1.0
    assert scorer.score(PROMPT[1:], "") == 2.0  # the same module: it was imported once
    conversation = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "how many\nwords ?"}]
    assert scorer.function.__globals__["seen"] == [(conversation, "two words"), (conversation[1:], "")]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("-2", -2.0),
        ("0.1 + 0.2", 0.1 + 0.2),
        ("True", 1.0),
        ("__import__('numpy').float32(0.5)", 0.5),
        ("__import__('fractions').Fraction(1, 4)", float(Fraction(1, 4))),
    ],
)
def test_a_number_of_any_kind_is_taken_as_it_is(tmp_path: Path, value: str, number: float) -> None:
    written(tmp_path, f"def score(prompt, response):\n    return {value}\n")
    assert load_scorer(tmp_path, FILE).score(PROMPT, "two words") == number


def test_a_file_may_hold_dataclasses(tmp_path: Path) -> None:
    kind = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Word:\n    text: str\n"
    written(tmp_path, f"{kind}def score(prompt, response):\n    return len(Word(response).text)\n")
    assert load_scorer(tmp_path, FILE).score(PROMPT, "four") == 4.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def score(prompt:", "cannot be imported: SyntaxError: '(' was never closed (mine.py, line 1)"),
        ("x = 1\n\n1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero (line 3)"),
        ("import sys\nsys.exit(3)\n", "cannot be imported: SystemExit: 3 (line 2)"),
        ("import nowhere_at_all\n", "cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all' (line 1)"),
        ("def scores(prompt, response):\n    return 1\n", "has no function score(prompt, response)"),
        ("score = 3\n", "has no function score(prompt, response)"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    assert said(tmp_path, text).startswith(f"{FILE}: {message}")
    assert len(said(tmp_path, text).splitlines()) == 1


def test_bytes_that_are_no_text_are_no_python(tmp_path: Path) -> None:
    written(tmp_path, "")
    (tmp_path / FILE).write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(UserError, match=rf"^{FILE}: cannot be imported: SyntaxError: "):
        load_scorer(tmp_path, FILE)


def test_a_file_of_another_kind_and_one_that_is_not_there_are_named(tmp_path: Path) -> None:
    written(tmp_path, "", "judges/mine.txt")
    with pytest.raises(UserError, match=r"^judges/mine\.txt: is no Python file, and evaluate\.scorer names it$"):
        load_scorer(tmp_path, "judges/mine.txt")
    for path in (FILE, "judges"):
        with pytest.raises(UserError, match=rf"^{path}: no such file, and evaluate\.scorer names it$"):
            load_scorer(tmp_path, path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return {}['x']", "score raises KeyError: 'x' (line 2)"),
        ("raise SystemExit", "score raises SystemExit (line 2) for"),
        ("import json\n    json.loads('{')", "score raises JSONDecodeError: Expecting property name"),
        ("return None", "score returns None"),
        ("return '3.5'", "score returns '3.5'"),
        ("return float('nan')", "score returns nan"),
        ("return -float('inf')", "score returns -inf"),
        ("return __import__('numpy').float32('inf')", "score returns np.float32(inf)"),
        ("return 1j", "score returns 1j"),
        ("return 10 ** 400", "score returns 1000"),
        ("return [\n1]", "score returns [1]"),
    ],
)
def test_a_call_that_gives_no_number_is_told_with_the_value_and_the_prompt(tmp_path: Path, body: str, message: str) -> None:
    line = said(tmp_path, f"def score(prompt, response):\n    {body}\n")
    assert line.startswith(f"{FILE}: {message}")
    assert "for the prompt 'how many words ?'" in line
    assert len(line.splitlines()) == 1


def test_the_line_is_one_of_the_file_and_not_of_what_it_calls(tmp_path: Path) -> None:
    assert "(line 3) for the prompt" in said(tmp_path, "import json\ndef score(prompt, response):\n    json.loads('{')\n")
    assert "given (line" not in said(tmp_path, "def score(response):\n    return 1\n")


def test_a_long_prompt_is_cut(tmp_path: Path) -> None:
    written(tmp_path, "def score(prompt, response):\n    return None\n")
    with pytest.raises(UserError) as caught:
        load_scorer(tmp_path, FILE).score((Message("user", "why " * 100),), "")
    assert f"'{('why ' * 100)[:79]}…'" in str(caught.value)
