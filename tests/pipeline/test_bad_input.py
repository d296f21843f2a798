"""What is wrong stops a stage with one message and exit code 1, before anything is overwritten."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.pipeline.clone import Clone, Done, contents
from tests.pipeline.conftest import SMOKE

ROWS = [{"prompt": f"question {number}", "chosen": "yes", "rejected": "no"} for number in range(1, 41)]
OWN_FILE = ["data=files", "labeler=dataset"]
NO_SUCH_DATA = (
    "data.path (data/none.jsonl): there is neither a file nor a folder of this name; for the set data/none.jsonl on the "
    "Hugging Face hub, set data.revision to a commit in full"
)


@pytest.fixture(autouse=True)
def untouched(shared: Clone) -> Iterator[None]:
    """Every test here leaves what the stages made as it is, and puts back what it broke itself."""
    before = outputs(shared)
    yield
    after = outputs(shared)
    shared.git("checkout", "--quiet", ".")
    shutil.rmtree(shared.root / "runs", ignore_errors=True)
    assert after == before


def outputs(clone: Clone) -> dict[str, str]:
    """All but the guard's own line, which DVC removes before the guard looks."""
    return {name: digest for name, digest in contents(clone.artifact()).items() if not name.startswith("config/")}


def assert_said(done: Done, message: str) -> None:
    """One message on stderr, no traceback anywhere, exit code 1."""
    assert (done.code, done.stderr) == (1, message + "\n")
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["ppo.kl_clt=0.2"], ["ppo: ppo.kl_clt: no such setting; did you mean ppo.kl_ctl?"]),
        (
            ["ppo.responses_per_minibatch=5", "sft.lr=nan", "dpo.prompts_per_step=-8"],
            [
                "ppo: sft.lr (nan) must be a finite number above 0",
                "ppo.responses_per_step (16) must be a multiple of ppo.responses_per_minibatch (5)",
                "dpo.prompts_per_step (-8) must be a whole number of at least 1",
            ],
        ),
    ],
)
def test_settings_that_cannot_be(shared: Clone, overrides: list[str], messages: list[str]) -> None:
    assert_said(shared.stage("ppo", SMOKE, *overrides, code=None), "\n".join(messages))
    assert not list((shared.root / "runs").rglob("model"))


def test_a_setting_that_cannot_be_stops_an_experiment(shared: Clone) -> None:
    done = shared.dvc("exp", "run", "-S", SMOKE, "-S", "ppo.lr=nan", code=None)
    assert done.code != 0
    assert "config: ppo.lr (nan) must be a finite number above 0\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.ran == ["config"]


def test_a_misspelt_experiment(shared: Clone) -> None:
    done = shared.dvc("exp", "run", "-S", "experiment=smokee", code=None)
    assert done.code != 0
    assert "Could not find 'experiment/smokee'" in done.stderr
    assert "smoke" in done.stderr.split()
    assert "Traceback" not in done.stderr
    assert done.ran == []


def test_params_yaml_edited_by_hand(shared: Clone) -> None:
    params = shared.root / "params.yaml"
    text = params.read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("  lam: ")]
    params.write_text(text.replace(line, "  lam: 0.123"), encoding="utf-8")
    for done in (shared.dvc("repro", code=None), shared.run("python", "stages/config.py", code=1)):
        assert done.code != 0
        assert "params.yaml is not what conf/ composes to:" in done.stderr
        assert f"  ppo.lam: 0.123 in params.yaml, {line.split()[1]} in conf/\n" in done.stderr
        assert "To take over conf/: python stages/config.py --write\n" in done.stderr
        assert "Traceback" not in done.stderr
    assert shared.dvc("repro", code=None).ran == ["config"]


def test_conf_edited_without_a_word_to_params_yaml(shared: Clone) -> None:
    conf = shared.root / "conf" / "sft" / "default.yaml"
    conf.write_text(conf.read_text(encoding="utf-8").replace("epochs: 2", "epochs: 3"), encoding="utf-8")
    done = shared.dvc("repro", code=None)
    assert done.code != 0
    assert "  sft.epochs: 2 in params.yaml, 3 in conf/\n" in done.stderr
    assert done.ran == ["config"]


def test_a_missing_file(shared: Clone) -> None:
    done = shared.stage("prepare", *OWN_FILE, "data.path=data/none.jsonl", code=None)
    assert_said(done, f"prepare: {NO_SUCH_DATA}")


@pytest.fixture
def broken_file(shared: Clone) -> Iterator[str]:
    """A file of preferences whose line 17 has a null."""
    path = write(shared.root / "data" / "x.jsonl", [*ROWS[:16], ROWS[16] | {"chosen": None}, *ROWS[17:]])
    yield "data/x.jsonl"
    path.unlink()


def test_a_broken_line(shared: Clone, broken_file: str) -> None:
    done = shared.stage("prepare", *OWN_FILE, f"data.path={broken_file}", code=None)
    assert_said(done, f"prepare: {broken_file}:17: field 'chosen' is null")


def refused(done: Done) -> str:
    """What was said of an experiment or a reproduction that no stage but the guard had a part in."""
    assert done.code != 0
    assert "Traceback" not in done.stderr
    assert set(done.ran) <= {"config"}
    return done.stderr


def experiment(clone: Clone, *overrides: str) -> str:
    return refused(clone.dvc("exp", "run", *(part for override in overrides for part in ("-S", override)), code=None))


def test_a_broken_line_stops_an_experiment_before_anything_is_removed(shared: Clone, broken_file: str) -> None:
    said = experiment(shared, SMOKE, *OWN_FILE, f"data.path={broken_file}")
    assert f"config: {broken_file}:17: field 'chosen' is null\n" in said


def test_a_missing_model_stops_an_experiment_before_anything_is_removed(shared: Clone) -> None:
    said = experiment(shared, SMOKE, "model=local", "model.path=data/none")
    assert f"failed to reproduce 'config': [Errno 2] No such file or directory: '{shared.root / 'data/none'}'" in said


def test_missing_data_stop_an_experiment_before_anything_is_removed(shared: Clone) -> None:
    said = experiment(shared, SMOKE, *OWN_FILE, "data.path=data/none.jsonl")
    assert f"config: {NO_SUCH_DATA}\n" in said


def test_a_model_without_its_tokenizer_stops_an_experiment_before_anything_is_removed(shared: Clone, tmp_path: Path) -> None:
    shutil.copytree(shared.artifact("base", "model"), tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer*"))
    said = experiment(shared, SMOKE, "model=local", f"model.path={tmp_path / 'model'}")
    assert f"config: {tmp_path / 'model'}: no tokenizer can be loaded from it (" in said
    assert "it holds no tokenizer.json" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "failed to reproduce 'config': [Errno 2] No such file or directory: '{path}'"),
        ("gold: 1\n", "config: data/world/english.yaml: language: is missing from this table (and "),
    ],
)
def test_an_input_that_changed_where_it_lies_stops_a_reproduction_before_anything_is_removed(
    shared: Clone, text: str | None, message: str
) -> None:
    path = shared.root / "data" / "world" / "english.yaml"
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert message.format(path=path) in refused(shared.dvc("repro", code=None))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_model_that_is_not_there(shared: Clone) -> None:
    done = shared.stage("base", "model=local", "model.path=models/none", code=None)
    assert_said(done, "base: models/none: no such folder; name a Hugging Face model directory, or a hub id (model=hub)")


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """The file away, its place free to write to, and then back; a link to DVC's cache stays whole."""
    kept = path.rename(path.with_name("kept"))
    try:
        yield path
    finally:
        kept.replace(path)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("label/preferences.jsonl", None, "artifacts/label/preferences.jsonl is missing: make it with `dvc repro label`"),
        ("sft/model/model.safetensors", "cut", "artifacts/sft/model: no model can be loaded from it ("),
    ],
)
def test_a_broken_or_missing_output_of_another_stage(shared: Clone, path: str, text: str | None, message: str) -> None:
    with replaced(shared.artifact(path)) as file:
        if text is not None:
            file.write_text(text, encoding="utf-8")
        done = shared.stage("dpo", SMOKE, code=None)
    assert done.code == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_corpus_of_nothing(shared: Clone) -> None:
    with replaced(shared.artifact("prepare", "corpus.jsonl")) as file:
        file.touch()
        done = shared.stage("base", SMOKE, code=None)
    assert_said(
        done, "base: artifacts/prepare/corpus.jsonl has no document to train a model on: `dvc repro prepare` makes it anew"
    )
    assert not list((shared.root / "runs").rglob("model"))


def test_a_reward_model_of_another_base_model(shared: Clone) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared.artifact("reward", "model"))
    tokenizer.add_tokens(["zyzzyva"])
    words = len(tokenizer) - 1
    with replaced(shared.artifact("reward", "model", "tokenizer.json")) as file:
        tokenizer.backend_tokenizer.save(str(file))
        done = shared.stage("ppo", SMOKE, code=None)
    assert_said(
        done,
        f"ppo: artifacts/sft/model and artifacts/reward/model have different tokenizers ({words} and {words + 1} "
        "tokens, end tokens </s> and </s>): they come from different base models; `dvc repro` makes both again",
    )
