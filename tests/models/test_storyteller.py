"""A model that tells stories: until an end, as many as asked, and nothing is told before all is known to fit."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from rlhf.data.stories import read_stories
from rlhf.errors import UserError
from rlhf.models.policy import save_policy
from rlhf.models.storyteller import Told, main, tell
from tests.models.tiny_models import CONTEXT, bigram_policy, words_tokenizer

STORIES = "models/stories260K"
SURE = 36.0  # a logit that is followed always
FLAGS = {"--stories": "3", "--temperature": "0.8", "--tokens": "8", "--seed": "0"}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return words_tokenizer("once upon a time the end")


@pytest.fixture
def model(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Always tells `once upon a time </s>`, and would tell `the end` after that for ever."""
    size = len(tokenizer) + len(tokenizer) % 2
    table = torch.zeros(size, size)
    told = ["<s>", "once", "upon", "a", "time", "</s>", "the", "end", "the"]
    ids = tokenizer.convert_tokens_to_ids(told)
    for before, after in pairwise(ids):
        table[before, after] = SURE
    save_policy(bigram_policy(table), tokenizer, tmp_path / "model", 8)
    return tmp_path / "model"


def set_ends(model: Path, tokenizer: PreTrainedTokenizerBase, *ends: str) -> None:
    file = model / "generation_config.json"
    ids = tokenizer.convert_tokens_to_ids(list(ends))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": ids}))


def arguments(model: Path, file: Path, **flags: str) -> list[str]:
    given = FLAGS | {f"--{name}": value for name, value in flags.items()}
    return [str(model), str(file), *(part for pair in given.items() for part in pair)]


def test_a_story_ends_at_the_end_token_or_at_the_limit(model: Path) -> None:
    assert tell(model, 2, 0.8, 8, 0) == [Told("once upon a time", True)] * 2
    assert tell(model, 2, 0.8, 5, 0) == [Told("once upon a time", True)] * 2
    assert tell(model, 2, 0.8, 3, 0) == [Told("once upon a", False)] * 2


@pytest.mark.parametrize("ends", [("</s>", "a"), ("a", "</s>"), ("a",)])
def test_a_story_ends_at_the_first_of_several_end_tokens(
    model: Path, tokenizer: PreTrainedTokenizerBase, ends: tuple[str, ...]
) -> None:
    set_ends(model, tokenizer, *ends)
    assert tell(model, 1, 0.8, 8, 0) == [Told("once upon a", True)]


def test_without_an_end_in_its_generation_config_the_tokenizers_counts(
    model: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    set_ends(model, tokenizer)
    assert tell(model, 1, 0.8, 8, 0) == [Told("once upon a time", True)]


def test_the_file_is_one_of_stories_and_what_was_cut_off_is_said(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments(model, tmp_path / "x.txt"))
    assert [story for _, story in read_stories(tmp_path / "x.txt")] == ["once upon a time"] * 3
    assert capsys.readouterr().out == f"{tmp_path / 'x.txt'}: 3 stories, 3 ended, 0 cut off at 8 tokens\n"
    main(arguments(model, tmp_path / "y.txt", tokens="2"))
    assert capsys.readouterr().out == f"{tmp_path / 'y.txt'}: 3 stories, 0 ended, 3 cut off at 2 tokens\n"


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("temperature", "0", "--temperature (0.0) must be a finite number above 0, or all stories are one"),
        ("temperature", "-1", "--temperature (-1.0) must be a finite number above 0"),
        ("temperature", "nan", "--temperature (nan) must be a finite number above 0"),
        ("stories", "0", "--stories (0) must be at least 1"),
        ("tokens", "0", "--tokens (0) must be at least 1"),
        ("tokens", str(CONTEXT), f"--tokens ({CONTEXT}) must be below the context of "),
        ("seed", "-1", "--seed (-1) must be at least 0 and below 2**63"),
        ("seed", str(2**63), f"--seed ({2**63}) must be at least 0 and below 2**63"),
    ],
)
def test_a_number_out_of_bounds_is_named(model: Path, tmp_path: Path, flag: str, value: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        main(arguments(model, tmp_path / "x.txt", **{flag: value}))
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "x.txt").exists()


def test_nothing_is_told_into_a_folder_that_is_not_there_or_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("mine")
    for file, message in {"nodir/x.txt": "there is no folder", "x.txt": "is there already: give a new name"}.items():
        with pytest.raises(UserError, match=message):
            main(arguments(tmp_path / "no model is looked for", tmp_path / file))
    assert (tmp_path / "x.txt").read_text() == "mine"


def test_a_model_that_is_not_whole_is_named(model: Path, tmp_path: Path) -> None:
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"1 of the model's weights are not in its file: model\.layers\.0\.mlp\.up_proj"):
        main(arguments(model, tmp_path / "x.txt"))


def test_a_complaint_is_one_line_and_the_exit_code_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rlhf.models.storyteller", *arguments(tmp_path / "none", tmp_path / "x.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    what = f"{tmp_path / 'none'}: no such folder; name a Hugging Face model directory, or a hub id (model=hub)"
    assert done.stderr == f"storyteller: {what}\n"


@pytest.mark.skipif("RLHF_TRIAL_DATA" not in os.environ, reason="RLHF_TRIAL_DATA names no folder with stories260K")
def test_a_real_model_tells_stories_that_end() -> None:
    folder = Path(os.environ["RLHF_TRIAL_DATA"]) / STORIES
    told = tell(folder, 8, 0.8, 400, 0)
    assert told == tell(folder, 8, 0.8, 400, 0)
    assert sum(story.ended for story in told) >= 4
    assert len({story.text for story in told}) == 8
    assert all(len(story.text.split()) > 20 for story in told)
    assert sum(" was " in story.text and "." in story.text for story in told) >= 6


def test_the_command_explains_every_word_and_signs_what_it_refuses(tmp_path: Path) -> None:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-m", "rlhf.models.storyteller", *words]
        return subprocess.run(call, capture_output=True, text=True, check=False)

    said = command("--help").stdout.partition("options:")[2]
    for flag in ("--stories STORIES", "--temperature TEMPERATURE", "--tokens TOKENS", "--seed SEED"):
        assert re.search(rf"{flag}\s+\w", said), flag
    refused = command(*arguments(tmp_path, tmp_path / "x.txt", stories="0"))
    assert (refused.returncode, refused.stderr) == (1, "storyteller: --stories (0) must be at least 1\n")
