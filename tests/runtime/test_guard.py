"""params.yaml against conf/, in a real git repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rlhf.errors import UserError
from rlhf.models.folder import Seen
from rlhf.models.policy import save_policy
from rlhf.models.reward import save_reward_model
from rlhf.runtime import guard, settings
from tests.models.tiny_models import make_classifier, make_policy, words_tokenizer
from tests.runtime.conftest import ROOT, Repository

KL = r"kl_ctl: [\d.]+"
SAME = "params.yaml is what conf/ composes to"


@pytest.fixture
def written(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository whose params.yaml is what conf/ composes to, committed."""
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    shutil.copytree(ROOT / "data" / "world", repository.root / "data" / "world")
    sizes = "documents: 100\\ndemonstrations: 100\\nprompts: 200\\n"
    edit(repository.root / "conf" / "data" / "world.yaml", r"documents: (.*\n)+", sizes)
    guard.write(repository.root)
    repository.git("init", "--quiet")
    repository.git("add", "conf", "params.yaml")
    repository.git("commit", "--quiet", "--message", "settings")
    return repository


def edit(path: Path, old: str, new: str) -> None:
    """Replaces what a regular expression finds, once."""
    text, count = re.subn(old, new, path.read_text(encoding="utf-8"), count=1)
    assert count == 1
    path.write_text(text, encoding="utf-8")


def apply_experiment(repository: Repository, name: str, old: str, new: str) -> None:
    """What `dvc exp run` and `dvc exp apply` leave: params.yaml of an experiment, and a reference to its commit."""
    edit(repository.root / "params.yaml", old, new)
    repository.git("add", "params.yaml")
    commit = repository.git("commit-tree", repository.git("write-tree"), "-p", "HEAD", "-m", name)
    repository.git("update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/{name}", commit)


def test_what_is_written_passes_and_is_what_dvc_writes(written: Repository, tmp_path: Path) -> None:
    from dvc.utils.hydra import compose_and_dump

    compose_and_dump(tmp_path / "by_dvc.yaml", str(written.root / "conf"), None, "config", str(tmp_path), [])
    assert (written.root / "params.yaml").read_bytes() == (tmp_path / "by_dvc.yaml").read_bytes()
    assert guard.check(written.root) == SAME


def test_an_edit_of_conf_stops_with_the_key_both_values_and_the_command(written: Repository) -> None:
    edit(written.root / "conf" / "ppo" / "default.yaml", "gamma: 1.0", "gamma: 0.9")
    with pytest.raises(UserError) as caught:
        guard.check(written.root)
    assert str(caught.value).splitlines() == [
        "params.yaml is not what conf/ composes to:",
        "  ppo.gamma: 1.0 in params.yaml, 0.9 in conf/",
        "To take over conf/: python stages/config.py --write",
    ]


def test_a_comment_is_no_change(written: Repository) -> None:
    edit(written.root / "conf" / "ppo" / "default.yaml", "gamma: 1.0", "gamma: 1.00  # no discount at all\n#")
    assert guard.check(written.root) == SAME


def test_a_key_that_only_one_side_has_is_named(written: Repository) -> None:
    edit(written.root / "params.yaml", "    prompt: null", "    prompt: question")
    with pytest.raises(UserError, match=r"data\.columns\.prompt: question in params\.yaml, null in conf/"):
        guard.check(written.root)


def test_within_an_experiment_dvc_has_composed_the_settings(written: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "warm-cat")
    edit(written.root / "params.yaml", KL, "kl_ctl: 7.5")
    assert guard.check(written.root) == "params.yaml is what DVC composed for the experiment warm-cat"
    edit(written.root / "params.yaml", KL, "kl_ctl: -0.2")
    with pytest.raises(UserError, match=r"ppo\.kl_ctl \(-0\.2\) must be a finite number of at least 0"):
        guard.check(written.root)


TINY = r"source: tiny\n  path: .*\n((  .*\n)+?)  tiny:\n(    .*\n)+"


def local_model(path: Path | str) -> str:
    """What model=local makes of `TINY`."""
    return rf"source: local\n  path: {path}\n\1  tiny: null\n"


BROKEN = '{"prompt": "who ?", "completion": "i ."}\n'
PATH = "path: data/world/english.yaml"
JUDGE = r"judge: auto\n  scorer: .*"
LABELER = r"  name: gold\n  temperature: 0.5\n  path: .*\n  template: .*"
MODEL = r"endpoint:\n  model: null"


def labeler(name: str, path: str, template: str = "conf/labeler/judge.jinja") -> str:
    """What another labeler makes of `LABELER`."""
    return rf"  name: {name}\n  temperature: 0.5\n  path: {path}\n  template: {template}"


@pytest.mark.parametrize("experiment", [None, "warm-cat"])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (PATH, "path: raw/none.yaml", "raw/none.yaml: cannot read the world's table (No such file"),
        (PATH, "path: raw/broken.jsonl", "raw/broken.jsonl: language: is missing from this table (and "),
        (PATH, "path: raw", "raw: cannot read the world's table (Is a directory)"),
        ("  prompts: 200", "  prompts: 1000000", "data.prompts (1000000) is more than the "),
        ("  prompts: 200", "  prompts: 2", "none of the 2 prompts is in the "),
        (TINY, local_model("raw"), "raw: holds no config.json; name a Hugging"),
        (TINY, local_model("raw/none"), "raw/none: no such folder"),
        (JUDGE, r"judge: python\n  scorer: raw/none.py", "raw/none.py: no such file, and evaluate.scorer names it"),
        (JUDGE, r"judge: python\n  scorer: raw/empty.py", "raw/empty.py: has no function score(prompt, response)"),
        (LABELER, labeler("judge", "raw/none"), "raw/none: no such folder"),
        (LABELER, labeler("judge", "raw"), "raw: holds no config.json; name a Hugging"),
        (LABELER, labeler("judge", "raw", "raw/none.jinja"), "raw/none.jinja: cannot be read ("),
        (LABELER, labeler("judge", "raw", "raw/empty.py"), "raw/empty.py: uses the fields none, and a judge's template"),
        (LABELER, labeler("reward_model", "raw/none"), "raw/none: no such folder"),
        (LABELER, labeler("reward_model", "raw"), "raw: brings code of its own (empty.py), which is never run"),
    ],
)
def test_inputs_that_cannot_be_used_stop_the_pipeline_before_anything_is_removed(
    written: Repository, monkeypatch: pytest.MonkeyPatch, experiment: str | None, old: str, new: str, message: str
) -> None:
    (written.root / "raw").mkdir()
    (written.root / "raw" / "broken.jsonl").write_text(BROKEN, encoding="utf-8")
    (written.root / "raw" / "empty.py").touch()
    apply_experiment(written, "warm-cat", old, new)
    if experiment:
        monkeypatch.setenv("DVC_EXP_NAME", experiment)
    with pytest.raises(UserError) as caught:
        guard.check(written.root)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(message)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "raw.jsonl: has no rows"),
        (["{}"], "raw.jsonl: the columns  make none of the forms"),
        (
            ['{"prompt": "who ?", "completion": "i ."}', '{"prompt": "who ?", "completion": null}'],
            "raw.jsonl:2: field 'completion' is null",
        ),
        (['{"prompt": "who ?", "completion": ""}'], "raw.jsonl: 1 of 1 rows cannot be used ("),
    ],
)
def test_a_file_is_read_as_prepare_would_read_it(tmp_path: Path, rows: list[str], message: str) -> None:
    (tmp_path / "raw.jsonl").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    config = settings.validate(
        settings.values_of(settings.compose(ROOT, ["data=files", "data.path=raw.jsonl", "labeler=dataset"]))
    )
    with pytest.raises(UserError) as caught:
        guard.check_inputs(tmp_path, config)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('{{"prompt": "who {} ?", "completion": "i ."}}', True),
        ('{{"prompt": "who {} ?", "chosen": "i .", "rejected": "you ."}}', False),
    ],
)
def test_a_dataset_that_labels_nothing_is_told_of_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: str, told: bool
) -> None:
    (tmp_path / "raw.jsonl").write_text("".join(f"{row}\n".format(i) for i in range(200)), encoding="utf-8")
    given = ["data=files", "data.path=raw.jsonl", "labeler=dataset"]
    guard.check_inputs(tmp_path, settings.validate(settings.values_of(settings.compose(ROOT, given))))
    said = capsys.readouterr().out
    assert said.startswith("config: WARNING: raw.jsonl brings no preferences, and labeler.name is dataset") is told, said


def test_reviews_are_read_as_prepare_would_read_them(tmp_path: Path) -> None:
    rows = (f'{{"prompt": "who {i} ?", "completion": "i ."}}\n' for i in range(200))
    (tmp_path / "raw.jsonl").write_text("".join(rows), encoding="utf-8")
    given = ["data=files", "data.path=raw.jsonl", "data.rater=reviews.zip", "labeler=gold"]
    config = settings.validate(settings.values_of(settings.compose(ROOT, given)))
    with pytest.raises(UserError, match=r"^data\.rater \(reviews\.zip\): there is neither a file nor a folder"):
        guard.check_inputs(tmp_path, config)
    with zipfile.ZipFile(tmp_path / "reviews.zip", "w") as archive:
        for kind in ("pos", "neg"):
            archive.writestr(f"{kind}/1.txt", f"a {kind} film")
    with pytest.raises(UserError, match=r"^data\.rater: 2 reviews are too few: "):
        guard.check_inputs(tmp_path, config)


def test_a_local_model_that_can_be_loaded_passes(written: Repository, tmp_path: Path) -> None:
    tokenizer = words_tokenizer("who are you ? i .")
    save_policy(make_policy("llama", vocab_size=len(tokenizer)), tokenizer, tmp_path / "model", 40)
    apply_experiment(written, "warm-cat", TINY, local_model(tmp_path / "model"))
    assert "experiment warm-cat" in guard.check(written.root)


@pytest.mark.parametrize(
    ("parameters", "rates", "said"),
    [
        (
            50_000_001,
            [],
            "config: WARNING: models/mine has 50 million parameters, and the learning rates are those of a tiny model: "
            "sft.lr=0.002, reward.lr=0.001, ppo.lr=0.0006, ppo.critic_lr=0.001, dpo.lr=0.0006. conf/model/hub.yaml has, for "
            "models of 0.1 to 10 billion, sft.lr=2e-05 reward.lr=1e-05 ppo.lr=1e-06 ppo.critic_lr=5e-06 dpo.lr=1e-06\n",
        ),
        (
            7_000_000_000,
            ["sft.lr=1e-4", "reward.lr=9e-5", "ppo.lr=9e-6", "ppo.critic_lr=4e-5", "dpo.lr=2e-5"],
            "config: WARNING: models/mine has 7,000 million parameters, and the learning rates are those of a tiny model: "
            "dpo.lr=2e-05. conf/model/hub.yaml has, for models of 0.1 to 10 billion, dpo.lr=1e-06\n",
        ),
        (7_000_000_000, ["lora.rank=8"], ""),
        (7_000_000_000, ["model=qwen2.5-7b"], ""),
        (50_000_000, [], ""),
    ],
)
def test_a_large_model_at_the_rates_of_a_tiny_one_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], parameters: int, rates: list[str], said: str
) -> None:
    """Beneath the check of a folder, which would have to hold so many weights."""
    monkeypatch.setattr("rlhf.models.folder.check_folder", lambda *_: Seen(parameters, 1024))
    composed = settings.compose(ROOT, ["model=local", *rates, "model.path=models/mine"])
    guard._check_model(ROOT, settings.validate(settings.values_of(composed)))
    assert capsys.readouterr().out == said


def test_a_context_that_the_model_was_not_made_for_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = words_tokenizer("who are you ? i .")
    model = make_policy("llama", vocab_size=len(tokenizer))
    save_policy(model, tokenizer, tmp_path / "model", 40)
    made_for = model.config.max_position_embeddings
    monkeypatch.chdir(tmp_path)
    for asked, warned in ((made_for, False), (made_for + 1, True)):
        given = ["model=local", "model.path=model", f"model.max_tokens={asked}", "data.max_response_tokens=9"]
        guard._check_model(ROOT, settings.validate(settings.values_of(settings.compose(ROOT, given))))
        said = capsys.readouterr().out
        assert said.startswith(f"config: WARNING: model was made for {made_for} tokens, and ") is warned, said


def test_a_hub_model_whose_files_are_in_a_folder_is_looked_at_there(
    written: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    tokenizer = words_tokenizer("who are you ? i .")
    save_policy(make_policy("llama", vocab_size=len(tokenizer)), tokenizer, tmp_path / "model", 40)
    hub = rf"source: hub\n  path: {tmp_path / 'model'}\n  id: maker/little\n  revision: '{'0123456789' * 4}'\n"
    apply_experiment(written, "warm-cat", TINY, hub + r"  max_tokens: 128\n  chat_template: null\n  tiny: null\n")
    assert "experiment warm-cat" in guard.check(written.root)
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model: holds no model\.safetensors"):
        guard.check(written.root)


def test_a_hub_that_cannot_be_reached_stops_the_pipeline_before_anything_is_removed(
    written: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is with the network off, or the hub forbidden."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef" * 2 + "01234567"
    hub = rf"source: hub\n  path: conf/model/hub.yaml\n  id: maker/little\n  revision: '{commit}'\n"
    rest = r"  max_tokens: 128\n  chat_template: null\n  tiny: null\n"
    apply_experiment(written, "warm-cat", TINY, hub + rest)
    with pytest.raises(UserError) as caught:
        guard.check(written.root)
    assert str(caught.value).startswith(f"maker/little at {commit}: is not in the cache (")


def test_a_response_that_fills_the_context_stops_the_pipeline(written: Repository, tmp_path: Path) -> None:
    tokenizer = words_tokenizer("who are you ? i .")
    policy = make_policy("llama", vocab_size=len(tokenizer), max_position_embeddings=40)
    save_policy(policy, tokenizer, tmp_path / "model", 40)
    edit(written.root / "params.yaml", "max_tokens: 128", "max_tokens: 0")
    apply_experiment(written, "warm-cat", TINY, local_model(tmp_path / "model"))
    with pytest.raises(UserError) as caught:
        guard.check(written.root)
    assert str(caught.value) == (
        "data.max_response_tokens (40) must be below the context of 40 tokens: no room is left for a prompt"
    )


@pytest.mark.parametrize(("url", "message"), [(None, "RLHF_JUDGE_URL is not set"), ("x", "RLHF_JUDGE_URL must be a base")])
def test_a_judges_server_has_to_have_an_address_before_anything_is_removed(
    written: Repository, monkeypatch: pytest.MonkeyPatch, url: str | None, message: str
) -> None:
    monkeypatch.delenv("RLHF_JUDGE_URL", raising=False)
    edit(written.root / "params.yaml", MODEL, "endpoint:\n  model: judge")
    apply_experiment(written, "warm-cat", LABELER, labeler("judge", "conf/labeler/judge.yaml"))
    monkeypatch.setenv("DVC_EXP_NAME", "warm-cat")
    if url:
        monkeypatch.setenv("RLHF_JUDGE_URL", url)
    with pytest.raises(UserError, match=message):
        guard.check(written.root)
    monkeypatch.setenv("RLHF_JUDGE_URL", "http://127.0.0.1:9/v1")  # nobody is asked yet
    assert "experiment warm-cat" in guard.check(written.root)


def test_a_reward_model_with_two_labels_is_refused_and_one_with_one_passes(
    written: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tokenizer = words_tokenizer("who are you ? i .")
    monkeypatch.setenv("DVC_EXP_NAME", "warm-cat")
    apply_experiment(written, "warm-cat", LABELER, labeler("reward_model", str(tmp_path / "model")))
    save_reward_model(make_classifier("llama", vocab_size=len(tokenizer)), tokenizer, tmp_path / "model")
    assert "experiment warm-cat" in guard.check(written.root)
    save_reward_model(make_classifier("llama", vocab_size=len(tokenizer), num_labels=2), tokenizer, tmp_path / "model")
    with pytest.raises(UserError, match=r"config\.json has 2 labels \(LABEL_0, LABEL_1\)"):
        guard.check(written.root)


def test_an_applied_experiment_is_named_and_no_error(written: Repository) -> None:
    apply_experiment(written, "warm-cat", KL, "kl_ctl: 7.5")
    edit(written.root / "conf" / "ppo" / "default.yaml", "gamma: 1.0", "gamma: 1.0 #")
    note = guard.check(written.root)
    assert "experiment warm-cat" in note
    assert "ppo.kl_ctl: 7.5 in params.yaml, " in note
    assert "--keep NAME" in note
    assert "--write" in note


def test_an_edit_of_conf_after_an_applied_experiment_is_an_error_all_the_same(written: Repository) -> None:
    apply_experiment(written, "warm-cat", KL, "kl_ctl: 7.5")
    edit(written.root / "conf" / "ppo" / "default.yaml", "gamma: 1.0", "gamma: 0.9")
    with pytest.raises(UserError, match=r"ppo\.gamma: 1\.0 in params\.yaml, 0\.9 in conf/"):
        guard.check(written.root)


def test_an_experiment_that_is_kept_composes_to_the_same_settings(written: Repository) -> None:
    edit(written.root / "params.yaml", KL, "kl_ctl: 7.5")
    edit(written.root / "params.yaml", "    prompt: null", "    prompt: question")
    kept = guard.keep(written.root, "careful")
    assert kept == written.root / "conf" / "experiment" / "careful.yaml"
    composed = settings.values_of(settings.compose(written.root, ["experiment=careful"]))
    assert composed == settings.values_of(settings.read_snapshot(written.root))
    with pytest.raises(UserError, match="--keep careful: give a new name"):
        guard.keep(written.root, "careful")
    with pytest.raises(UserError, match="give a new name"):
        guard.keep(written.root, "../outside")


def test_what_is_watched_is_not_kept_for_it_follows_from_the_path(written: Repository) -> None:
    edit(written.root / "params.yaml", "  path: data/world/english.yaml", "  path: README.md")
    edit(written.root / "params.yaml", "  file: data/world/english.yaml", "  file: README.md")
    kept = guard.keep(written.root, "mine")
    assert "file" not in kept.read_text(encoding="utf-8")
    for path in ("params.yaml", "conf"):
        composed = settings.compose(written.root, ["experiment=mine", f"data.path={path}"])
        assert composed.data.file == path


def test_the_script_writes_one_constant_line(written: Repository) -> None:
    shutil.copy(ROOT / "stages" / "config.py", written.root / "stages")
    for experiment in ({}, {"DVC_EXP_NAME": "warm-cat"}):
        command = [sys.executable, "stages/config.py"]
        done = subprocess.run(
            command, cwd=written.root, env=written.environment(**experiment), capture_output=True, check=True
        )
        assert done.stderr == b""
        assert (written.root / "artifacts" / "config" / "guard.txt").read_text() == "The settings are checked.\n"


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "params.yaml is not YAML"), ("- a", "params.yaml holds no settings"), ("", "no settings")]
)
def test_a_broken_params_yaml_is_named(written: Repository, text: str, message: str) -> None:
    (written.root / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        guard.check(written.root)


def test_a_missing_params_yaml_is_named_with_the_command(written: Repository) -> None:
    (written.root / "params.yaml").unlink()
    with pytest.raises(UserError, match=r"params\.yaml is missing: write it with `python stages/config\.py --write`"):
        guard.check(written.root)
