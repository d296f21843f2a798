"""A judge's template is the user's: it is filled as it stands, and what is wrong with it is said before it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.data.question import fill, load_template
from rlhf.errors import UserError
from rlhf.records import Message

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "conf" / "labeler" / "judge.jinja"
PROMPT = (
    Message("system", "Be brief."),
    Message("user", "{{ 7 * 7 }} <b> 你好"),
    Message("assistant", "?"),
    Message("user", "So?"),
)


def test_the_default_shows_every_turn_and_both_responses_as_they_are() -> None:
    asked = fill(load_template(DEFAULT), DEFAULT, PROMPT, "first & {braces}", "second\n{% if %}")
    assert (
        "<conversation>\nsystem: Be brief.\nuser: {{ 7 * 7 }} <b> 你好\nassistant: ?\nuser: So?\n</conversation>\n\n"
        "<response_a>\nfirst & {braces}\n</response_a>\n\n<response_b>\nsecond\n{% if %}\n</response_b>\n"
    ) in asked
    assert asked.startswith("You compare two responses")
    assert asked.splitlines()[-3:] == ["A", "B", "tie"]


def test_the_default_treats_both_responses_alike() -> None:
    one, other = (fill(load_template(DEFAULT), DEFAULT, PROMPT, *texts) for texts in (("x", "y"), ("y", "x")))
    assert one != other
    assert one.translate(str.maketrans("", "", "xy")) == other.translate(str.maketrans("", "", "xy"))


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{{ prompt[-1].content }}|{{ response_a }}|{{ response_b | upper }}", encoding="utf-8")
    assert fill(load_template(path), path, PROMPT, "a", "b") == "So?|a|B"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, ": cannot be read ("),
        (b"\xff", ": cannot be read ("),
        (b"{{ prompt }}\n{{ response_a }\n{{ response_b }}", ":2: is no template: unexpected '}'"),
        (
            b"{{ prompt }} {{ response_a }}",
            ": uses the fields prompt, response_a, and a judge's template uses exactly prompt,",
        ),
        (
            b"{{ prompt }} {{ response_a }} {{ response_b }} {{ gold }}",
            ": uses the fields gold, prompt, response_a, response_b,",
        ),
        (b"Which is better?", ": uses the fields none, and"),
        (b"{{ prompt[0].text }} {{ response_a }} {{ response_b }}", ": cannot be filled: 'dict object' has no attribute"),
        (b"{{ prompt }} {{ response_a.__class__.mro() }} {{ response_b }}", ": cannot be filled: access to attribute"),
    ],
)
def test_what_is_wrong_with_a_template_is_said_by_its_name(tmp_path: Path, text: bytes | None, message: str) -> None:
    path = tmp_path / "mine.jinja"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(UserError) as caught:
        load_template(path)
    assert str(caught.value).startswith(f"{path}{message}")
