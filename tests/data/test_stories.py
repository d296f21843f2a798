"""Stories cut in two: at the ends of sentences, every story once, and each opening in one split."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlhf.config import Prepare, Stories
from rlhf.data.files import read_records
from rlhf.data.prepared import Prepared, check, write
from rlhf.data.sources import prepare
from rlhf.data.stories import Cut, cut, read_stories
from rlhf.data.unusable import REASONS
from rlhf.errors import UserError
from rlhf.models.tokens import complete_tokenizer, decode_response, encode_prompt, encode_response, load_tokenizer
from rlhf.records import Demonstration, Message
from tests.data.settings import settings
from tests.data.test_sources import SHARES, config_with, seed_of

EXPERIMENT = Path(__file__).parents[2] / "conf" / "experiment" / "stories.yaml"
SIZES = Stories(opening_sentences=2, continuation_sentences=1, space_before_continuation=False)
SPACED = SIZES.model_copy(update={"space_before_continuation": True})


def prepared(path: Path, shares: Prepare = SHARES, **changes: Any) -> Prepared:
    return prepare(settings("stories", path, **({"stories": SIZES} | changes)), shares, seed_of)


def file_of(folder: Path, count: int) -> Path:
    path = folder / "stories.txt"
    stories = (f"There was a cat named {i // 2}. It\nsat! It ran {i}. The end.\n" for i in range(count))
    path.write_text("<|endoftext|>\n".join(stories))
    return path


def test_a_story_is_cut_at_the_ends_of_sentences() -> None:
    told = 'Ben  saw\na dog. "Hi!" said Ben. The dog said, "Wow!" Ben smiled.'
    assert cut(told, SIZES.model_copy(update={"opening_sentences": 1, "continuation_sentences": 2})) == Cut(
        "Ben saw a dog.", '"Hi!" said Ben.'
    )


def test_what_breaks_off_is_no_sentence() -> None:
    assert cut("One. Two. Three", SIZES) is None
    assert cut("One. Two.", SIZES) is None
    assert cut("One. Two. Three. Fo", SIZES) == Cut("One. Two.", "Three.")


def test_marks_stand_anywhere_and_the_last_one_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("\nA.\nB.\n<|endoftext|>\n\n<|endoftext|>C.<|endoftext|>D.\n")
    assert list(read_stories(path)) == [(f"{path}:2", "A.\nB."), (f"{path}:6", "C."), (f"{path}:6", "D.")]


@given(st.lists(st.text("ab \n", max_size=6), max_size=6))
def test_a_story_is_known_by_the_line_it_begins_in(tmp_path_factory: pytest.TempPathFactory, told: list[str]) -> None:
    path = tmp_path_factory.mktemp("stories") / "x.txt"
    text = "<|endoftext|>".join([*told, "end"])
    path.write_text(text)
    found = [(place.rpartition(":")[2], story) for place, story in read_stories(path)]
    assert [story for _, story in found] == [story.strip() for story in [*told, "end"] if story.strip()]
    lines = text.split("\n")
    for number, story in found:
        assert story.partition("\n")[0] in lines[int(number) - 1]


def byte_level_tokenizer() -> PreTrainedTokenizerBase:
    """A space belongs to the word after it, and none is put before a text: GPT-2's way."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(["It sat. It ran. It sat! It ran. "] * 9, trainer)
    return complete_tokenizer(PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>"), "made here")


def read_on(tokenizer: PreTrainedTokenizerBase, sizes: Stories) -> tuple[list[int], list[int]]:
    """The ids of an opening and its continuation as the stages make them, and those of the running text."""
    tokenizer.chat_template = yaml.safe_load(EXPERIMENT.read_text())["model"]["chat_template"]
    found = cut("It sat. It ran. It sat! It ran.", sizes)
    assert found is not None
    prompt_ids, _ = encode_prompt(tokenizer, (Message("user", found.opening),), 512)
    running, _ = encode_prompt(tokenizer, (Message("user", "It sat. It ran. It sat!"),), 512)
    return prompt_ids + encode_response(tokenizer, found.continuation, ended=False), running


def test_a_tokenizer_that_puts_no_space_before_a_text_reads_on_only_where_the_continuation_keeps_it() -> None:
    spaced, running = read_on(byte_level_tokenizer(), SPACED)
    assert spaced == running
    glued, _ = read_on(byte_level_tokenizer(), SIZES)
    assert glued != running
    assert decode_response(byte_level_tokenizer(), glued) == "It sat. It ran.It sat!"


@pytest.mark.skipif("RLHF_TRIAL_DATA" not in os.environ, reason="RLHF_TRIAL_DATA names no folder with stories260K")
def test_a_tokenizer_that_puts_one_there_reads_on_where_it_goes() -> None:
    tokenizer = load_tokenizer(Path(os.environ["RLHF_TRIAL_DATA"]) / "models" / "stories260K")
    glued, running = read_on(tokenizer, SIZES)
    assert glued == running
    spaced, _ = read_on(tokenizer, SPACED)
    assert spaced != running


def test_the_space_is_in_the_demonstrations_alone(tmp_path: Path) -> None:
    path = file_of(tmp_path, 40)
    plain, spaced = prepared(path), prepared(path, stories=SPACED)
    assert [" " + d.completion for d in plain.demonstrations] == [d.completion for d in spaced.demonstrations]
    assert (plain.prompts, plain.rows) == (spaced.prompts, spaced.rows)
    write(spaced, tmp_path)
    assert read_records(tmp_path / "demonstrations.jsonl", Demonstration) == spaced.demonstrations


def test_openings_are_prompts_and_continuations_demonstrations(tmp_path: Path) -> None:
    made = prepared(file_of(tmp_path, 400))
    check(made, config_with(settings("stories", "x", stories=SIZES)))
    assert len(made.prompts) == 200
    assert {d.completion for d in made.demonstrations} == {f"It ran {i}." for i in range(400)}
    split_of = {p.prompt: p.split for p in made.prompts}
    assert all(split_of[d.prompt] == d.split for d in made.demonstrations)
    assert made.prompts[0].prompt[0].content == "There was a cat named 0. It sat!"
    assert (made.rows["read"], made.rows["kept"], made.rows["left_out"]) == (400, 400, 0)
    assert made.rows["dropped"] == dict.fromkeys(REASONS, 0)


def test_a_story_that_comes_again_is_a_duplicate(tmp_path: Path) -> None:
    path = file_of(tmp_path, 40)
    once = prepared(path)
    path.write_text("<|endoftext|>\n".join([path.read_text()] * 3))
    with pytest.raises(
        UserError, match=rf"^{path}: 80 of 120 rows cannot be used .*: duplicate 80 \(first {path}:121\); mend"
    ):
        prepared(path)
    made = prepared(path, SHARES.model_copy(update={"max_dropped_share": 0.7}), prompts=10)
    assert (made.rows["read"], made.rows["kept"], made.rows["left_out"]) == (120, 20, 20)
    assert {reason: count for reason, count in made.rows["dropped"].items() if count} == {"duplicate": 80}
    assert set(made.demonstrations) <= set(once.demonstrations)


def test_documents_are_of_what_is_learned_from_alone(tmp_path: Path) -> None:
    made = prepared(file_of(tmp_path, 400), demonstrations=60, documents=50)
    train = [d for d in made.demonstrations if d.split == "train"]
    held_out = [p.prompt[0].content for p in made.prompts if p.split != "train"]
    assert (len(train), len(made.documents)) == (60, 50)
    assert set(made.documents) <= {f"{d.prompt[0].content}\n\n{d.completion}" for d in train}
    assert held_out
    assert not [text for text in made.documents if any(prompt in text for prompt in held_out)]


def test_no_story_stays_in_memory_that_is_not_drawn(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("<|endoftext|>\n".join(f"There was a cat {i}. It sat. {'It ran. ' * 500}" for i in range(2000)))
    tracemalloc.start()
    try:
        prepared(path, prompts=10)
        assert tracemalloc.get_traced_memory()[1] < 0.3 * path.stat().st_size
    finally:
        tracemalloc.stop()


def test_prompts_that_are_not_drawn_take_their_stories_with_them(tmp_path: Path) -> None:
    made = prepared(file_of(tmp_path, 400), prompts=50)
    assert len(made.prompts) == 50
    assert made.rows["kept"] == len(made.demonstrations) == 100
    assert made.rows["left_out"] == 300


def test_short_stories_are_counted_and_too_many_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path, 40)
    path.write_text(path.read_text() + "<|endoftext|>\nToo short.\n")
    assert {name: n for name, n in prepared(path).rows["dropped"].items() if n} == {"too_short": 1}
    with pytest.raises(
        UserError,
        match=rf"1 of 41 rows .* above prepare\.max_dropped_share \(0\.01\)\): too_short 1 \(first {path}:121\); mend "
        r"them, lower data\.stories\.opening_sentences \(2\) or data\.stories\.continuation_sentences \(1\), or raise",
    ):
        prepared(path, SHARES.model_copy(update={"max_dropped_share": 0.01}))


def test_a_file_without_stories_and_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(" \n<|endoftext|>\n")
    with pytest.raises(UserError, match=r"x\.txt: has no stories"):
        prepared(tmp_path / "x.txt")
    (tmp_path / "more").mkdir()
    for folder in (tmp_path, tmp_path / "more"):
        with pytest.raises(UserError, match=r"^data\.path \(.*\): is a folder; name one file of stories"):
            prepared(folder)
    with pytest.raises(UserError, match=r"nowhere\.txt: cannot be read \(No such file or directory\)"):
        prepared(tmp_path / "nowhere.txt")
