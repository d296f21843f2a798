"""What the command line says against what there is to say, and the words for what is not."""

from __future__ import annotations

import pytest

from rlhf.errors import UserError
from rlhf.runtime import overrides, processes
from tests.runtime.conftest import ROOT


def message(*given: str) -> str:
    with pytest.raises(UserError) as caught:
        overrides.check_names(ROOT / "conf", given)
    return str(caught.value)


@pytest.mark.parametrize(
    "given", ["seed=1", "sft.lr=0.1,0.2", "ppo=shared", "hydra.run.dir=x", "data.columns={prompt: '用户'}"]
)
def test_what_there_is_passes(given: str) -> None:
    overrides.check_names(ROOT / "conf", [given])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ppo=glob(*)", "ppo=glob(*): name the values themselves, as in ppo=A,B"),
        ("ppo.kl_ctl=glob(*)", "ppo.kl_ctl=glob(*): name the values themselves, as in ppo.kl_ctl=A,B"),
        ("ppo=sharde", "ppo=sharde: no such choice; did you mean ppo=shared?"),
        ("sft={lr: 0.1}", "sft is a group of settings: change them one by one, as in sft.lr=0.1"),
        ("data={columns: {prompt: x}}", "data is a group of settings: change them one by one, as in data.columns.prompt=x"),
        ("sft={}", "sft is a group of settings: change them one by one, as in sft.NAME=VALUE"),
        ("sft=[a,b]", None),
    ],
)
def test_a_group_takes_the_name_of_a_choice(given: str, expected: str | None) -> None:
    if expected is None:
        overrides.check_names(ROOT / "conf", [given])  # a list of choices is for Hydra to look up
    else:
        assert message(given) == expected


def test_every_wrong_override_has_its_line() -> None:
    lines = message("sft={lr: 0.1}", "seed=1", "nothing_like_it=2").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["sft is a group of settings", "nothing_like_it"]


@pytest.mark.parametrize(
    ("given", "quoted"),
    [
        ("data.columns={prompt: 用户}", "\"data.columns={prompt: '用户'}\""),
        ("data.columns.prompt=Frage-für-2", "\"data.columns.prompt='Frage-für-2'\""),
    ],
)
def test_letters_beyond_ascii_are_shown_with_the_quotes_that_they_need(given: str, quoted: str) -> None:
    assert message(given).endswith(f"; put it in quotes: {quoted}")
    overrides.check_names(ROOT / "conf", [quoted.strip('"')])


def test_a_word_with_quotes_is_not_quoted_again() -> None:
    assert "quotes" not in message("data.name='用户' = x")


@pytest.mark.parametrize("given", [["--multirun", "seed=1,2"], ["-cd", ".", "-cn", "params"], ["--help"], []])
def test_the_options_of_hydra_pass(given: list[str]) -> None:
    overrides.check_options(given)


@pytest.mark.parametrize("given", [["--lr=3"], ["--cfg=nothing"], ["seed=1", "-x"]])
def test_any_other_option_is_refused_in_one_line(given: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"^[^\n]+; settings have no dashes, as in seed=1 \(--help lists the options\)$"):
        overrides.check_options(given)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("said", "shown"), [("there is nothing", "label: there is nothing"), ("label: none", "label: none")]
)
def test_the_name_of_the_stage_stands_once_before_its_message(
    said: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise UserError(said)

    assert processes.attempt("label", work) == 1
    assert capsys.readouterr().err == f"{shown}\n"
