"""Every file of conf/ composes to settings that are fit for use, params.yaml is what conf/ says, and typos are answered."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import MissingConfigException

from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.runtime import guard, messages, settings
from tests.models.tiny_models import words_tokenizer

ROOT = Path(__file__).resolve().parents[1]
CHOICES = sorted(path for path in (ROOT / "conf").glob("*/*.yaml"))
COMMIT = "0123456789abcdef" * 2 + "01234567"
OWN_DATA = [path.stem for path in CHOICES if path.parent.name == "data" and path.stem != "world"]
NEEDS = {  # what a choice cannot do without
    **{f"data={name}": ["data.path=data/mine.jsonl", "labeler=dataset"] for name in OWN_DATA},
    "data=stories": ["data.path=data/stories.txt", "data.rater=data/reviews.zip"],
    "experiment=stories": ["data.path=data/stories.txt", "data.rater=data/reviews.zip", "model.path=models/mine"],
    "labeler=judge": ["endpoint.model=judge"],
    "labeler=reward_model": ["labeler.path=models/scorer"],
    "labeler=dataset": ["data=hh_rlhf", "data.path=data/hh.jsonl.gz"],
    "model=local": ["model.path=models/mine"],
    "model=hub": ["model.id=owner/name", f"model.revision={COMMIT}"],
    "ppo=shared": [],
}


def compose(*overrides: str) -> Config:
    return settings.validate(settings.values_of(settings.compose(ROOT, overrides)))


@pytest.mark.parametrize("choice", [f"{path.parent.name}={path.stem}" for path in CHOICES])
def test_every_choice_composes_and_is_fit_for_use(choice: str) -> None:
    group, _, name = choice.partition("=")
    config = compose(choice, *NEEDS.get(choice, []))
    section = getattr(config, group, None)
    assert group == "experiment" or section is not None
    if hasattr(section, "name"):
        assert section.name == name


def test_every_model_by_name_is_another_one_pinned_and_named_in_the_docs() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    names = [path.stem for path in CHOICES if path.parent.name == "model" and path.stem not in ("tiny", "local", "hub")]
    models = [compose(f"model={name}").model for name in names]
    assert len({model.id for model in models}) == len({model.revision for model in models}) == len(names) > 12
    for model in models:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{model.name}` | {model.id} | ")]
        assert f"`{model.revision}`" in row
        assert model.path == f"conf/model/{model.name}.yaml"


@pytest.mark.parametrize("name", ["qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b"])
def test_a_chat_model_that_would_think_aloud_is_asked_with_its_thinking_done(name: str) -> None:
    """As Qwen3's own template has it with enable_thinking=false."""
    tokenizer = words_tokenizer("who are you ? i .")
    tokenizer.chat_template = compose(f"model={name}").model.chat_template
    talk = [("system", "be kind ."), ("user", "who ?"), ("assistant", "i ."), ("user", "you ?")]
    rows = [{"role": role, "content": content} for role, content in talk]
    said = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in talk)
    asked = said + "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=False) == said
    assert tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True) == asked


def test_params_yaml_is_what_conf_composes_to() -> None:
    from omegaconf import OmegaConf

    composed = settings.compose(ROOT)
    said = guard.compare(
        ROOT, settings.values_of(settings.read_snapshot(ROOT))
    )  # an experiment that was applied is no drift
    if said == guard.SAME:
        assert (ROOT / "params.yaml").read_text(encoding="utf-8") == OmegaConf.to_yaml(composed), guard.WRITE


def test_an_experiment_that_is_none_is_refused_by_hydra_too() -> None:
    """`dvc exp run -S` asks Hydra, not us."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None), pytest.raises(MissingConfigException):
        hydra_compose("config", overrides=["experiment=smokee"])


def test_the_experiment_with_stories_labels_and_judges_by_sentiment_and_goes_on_with_the_text_itself() -> None:
    config = compose("experiment=stories", *NEEDS["experiment=stories"])
    assert (config.data.source, config.labeler.name, config.evaluate.judge) == ("stories", "gold", "auto")
    assert config.data.learns_rater
    assert config.model.chat_template is not None
    assert "Human" not in config.model.chat_template


def test_reviews_give_data_of_any_form_a_gold_rater() -> None:
    assert compose("data=files", "data.path=x", "data.rater=reviews.zip").labeler.name == "gold"


def test_no_experiment_changes_nothing() -> None:
    assert compose("experiment=none") == compose()


def test_every_setting_has_a_value_in_conf_and_none_stands_in_the_code() -> None:
    values = settings.flatten(settings.values_of(settings.compose(ROOT)))
    known = messages.known_settings()
    shut = {name for name, value in values.items() if value is None and any(n.startswith(f"{name}.") for n in known)}
    leaves = {name for name in known if not any(n.startswith(f"{name}.") for n in known)}
    assert set(values) == shut | {name for name in leaves if not name.startswith(tuple(f"{group}." for group in shut))}
    assert shut == {"data.stories"}, "a group that another choice opens"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("ppo.kl_clt=0.2", "ppo.kl_clt: no such setting; did you mean ppo.kl_ctl?"),
        ("pppo.kl_ctl=0.2", "pppo.kl_ctl: no such setting; did you mean ppo.kl_ctl?"),
        ("kl_ctl=0.2", "kl_ctl: no such setting; did you mean ppo.kl_ctl?"),
        ("+ppo.kl_clt=0.2", "ppo.kl_clt: no such setting; did you mean ppo.kl_ctl?"),
        ("ppo.entirely_different=0.2", "ppo.entirely_different: no such setting"),
        ("data=wrld", "data=wrld: no such choice; did you mean data=world?"),
        ("experiment=smokee", "experiment=smokee: no such choice; did you mean experiment=smoke?"),
        ("engine=jax", "engine=jax: no such choice; there are single, zero0, zero1, zero2, zero3, zero3_offload"),
        ("ppo.lr=nan", "ppo.lr (nan) must be a finite number above 0"),
        ("ppo.lr=inf", "ppo.lr (inf) must be a finite number above 0"),
        ("ppo.lr=fast", "ppo.lr (fast) must be a finite number above 0"),
        ("ppo.lr=null", "ppo.lr (null) must be a finite number above 0"),
        ("sft.demonstrations_per_step=-4", "sft.demonstrations_per_step (-4) must be a whole number of at least 1"),
        ("sft.demonstrations_per_step=2.5", "sft.demonstrations_per_step (2.5) must be a whole number of at least 1"),
        ("ppo.gamma=1.5", "ppo.gamma (1.5) must be a finite number above 0 and at most 1"),
        ("reward.label_smoothing=0.5", "reward.label_smoothing (0.5) must be a finite number of at least 0 and below 0.5"),
        ("ppo.w_c=-1", "ppo.w_c (-1) must be a finite number of at least 0 or null"),
        ("reward.layers=0", "reward.layers (0) must be a whole number of at least 1 or null"),
        ("labeler.temperature=-1", "labeler.temperature (-1) must be a finite number of at least 0"),
        ("label.prompts=-1", "label.prompts (-1) must be a whole number of at least 0"),
        ("reward.centre=1", "reward.centre (1) must be true or false"),
        ("engine.attention=fast", "engine.attention (fast) must be one of auto, eager, sdpa, flash_attention_2"),
        ("sample.models=[bas]", "sample.models.0 (bas) must be one of base, sft"),
        ("sample.models=[]", "sample.models ([]) must be a list of at least 1, each one of base, sft"),
        ("ppo.stop=3", "ppo.stop (3) must be a group of settings"),
        ("~ppo.lr", "ppo.lr is missing: it must be a finite number above 0"),
        ("data=files", "data.path has no value: set it, as in data.path=VALUE"),
        ("data.language=fr", "data.language (fr) must be one of en, zh"),
        ("data.language=null", "data.language (null) must be one of en, zh"),
        ("data.language=en,de,zh", "data.language (de) must be one of en, zh"),
        *(
            (
                f"data=shp data.path=owner/name data.revision={revision} labeler=dataset",
                f"data.revision ({revision}) must be a commit in full, 40 digits of 0-9 and a-f, because a branch or a "
                "tag can move: copy one from https://huggingface.co/datasets/owner/name/commits/main",
            )
            for revision in ("main", COMMIT[:7])
        ),
        (
            f"data.revision={COMMIT}",
            f"data.revision ({COMMIT}) must be null with data.source (world): the world is made here, and its table is a "
            "file",
        ),
        ("data.columns.promt=x", "data.columns.promt: no such setting; did you mean data.columns.prompt?"),
        (
            "ppo.responses_per_step=64 ppo.responses_per_minibatch=10",
            "ppo.responses_per_step (64) must be a multiple of ppo.responses_per_minibatch (10)",
        ),
        ("model.tiny.layers=0", "model.tiny.layers (0) must be a whole number of at least 1"),
        ("model.tiny.layer=2", "model.tiny.layer: no such setting; did you mean model.tiny.layers?"),
        (
            "model.tiny=null",
            "model.tiny (null) does not go with model.source (tiny): it is the sizes of a model trained "
            "here. Choose model=tiny, model=local or model=hub",
        ),
        (
            "model.source=local",
            "model.tiny (a group of settings) does not go with model.source (local): it is the sizes of a model trained "
            "here. Choose model=tiny, model=local or model=hub",
        ),
        *(
            (
                f"{choice} {name}={value}",
                f"{name} ({value}) must be null with model.source ({source}): it is of a model of the hub. Choose "
                "model=local model.path=DIR without it; or a hub model, whose files model.path=DIR reads from a folder",
            )
            for choice, source in (("model=local model.path=models/mine", "local"), ("model=tiny", "tiny"))
            for name, value in (("model.id", "owner/name"), ("model.revision", COMMIT))
        ),
        (
            "model=qwen2.5-0.5b model.source=local model.path=models/mine",
            "model.id (Qwen/Qwen2.5-0.5B) must be null with model.source (local): it is of a model of the hub. Choose "
            "model=local model.path=DIR without it; or a hub model, whose files model.path=DIR reads from a folder",
        ),
        (
            "model.path=models/mine",
            "model.path (models/mine) does not go with model.source (tiny), which is trained here from nothing: choose "
            "model=local to start from that folder, or one of the models by name (docs/models.md)",
        ),
        (
            "model=local model.path=conf/model/tiny.yaml",
            "model.path (conf/model/tiny.yaml) must be a folder with model.source (local): a Hugging Face model directory",
        ),
        ("model.tiny.heads=3", "model.tiny.hidden_size (80) must be a multiple of model.tiny.heads (3)"),
        (
            "ppo.critic_warmup_steps=30",
            "ppo.critic_warmup_steps (30) must be below ppo.stop.steps (30), or the policy never learns",
        ),
        ("ppo.kl_target=5 ppo.kl_ctl=0", "ppo.kl_ctl (0) must be above 0 with ppo.kl_target (5): it adapts by a factor"),
        (
            "ppo.kl_target=5 ppo.kl_horizon=2",
            "ppo.responses_per_step (128) must be below 5 x ppo.kl_horizon (2), or kl_ctl can turn negative (SPEC eq. 7)",
        ),
        (
            "ppo.advantage=rloo",
            "ppo.critic (separate) does not go with ppo.advantage (rloo): gae needs a critic, rloo and grpo have none "
            "(`ppo=rloo` and `ppo=grpo` set both)",
        ),
        (
            "ppo=rloo ppo.responses_per_prompt=1",
            "ppo.responses_per_prompt (1) must be at least 2 with ppo.advantage (rloo): the responses to a prompt are each "
            "other's baseline",
        ),
        (
            "ppo=grpo ppo.weight=action_value",
            "ppo.weight (action_value) needs a critic, and ppo.advantage (grpo) has none",
        ),
        (
            "dpo.rounds=2 labeler=dataset data=hh_rlhf data.path=x model=local model.path=x",
            "dpo.rounds (2) must be 1 with labeler.name (dataset): from the second round on somebody has to label new "
            "answers, and only labeler=gold can",
        ),
        (
            "ppo=rloo ppo.gamma=0.5",
            "ppo.gamma (0.5) must be 1 with ppo.advantage (rloo): whole responses are compared, and nothing is discounted",
        ),
        ("ppo=shared ppo.w_c=0", "ppo.w_c (0) must be above 0 with ppo.critic=shared: it weighs L_critic in L_total"),
        (
            "ppo.score_scale=true",
            "ppo.score_scale (true) needs ppo.score_centre (true): what scores have in common would be multiplied as "
            "well, the more the less they differ",
        ),
        (
            "ppo.keep_best_by=validation_kl_per_response",
            "ppo.keep_best_by (validation_kl_per_response) must be one of validation_score, validation_gold_score, "
            "validation_ended or null",
        ),
        (
            "ppo.keep_best_by=validation_gold_score labeler=dataset data=hh_rlhf data.path=x model=local model.path=x",
            "ppo.keep_best_by (validation_gold_score) needs a gold rater, but data.source is hh_rlhf: choose "
            "validation_score, data=world, or reviews for data.rater",
        ),
        (
            "ppo.stop.plateau_evaluations=6",
            "ppo.stop.plateau_evaluations (6) x ppo.eval_every_steps (5) must be at most ppo.stop.steps (30) - "
            "ppo.critic_warmup_steps (2), or it never stops anything",
        ),
        ("ppo=rloo ppo.w_c=0.1", "ppo.w_c (0.1) must be null with ppo.critic=none: there is no loss it weighs"),
        (
            "ppo=rloo ppo.critic_warmup_steps=2",
            "ppo.critic_warmup_steps (2) must be 0 with ppo.critic=none: no critic learns",
        ),
        (
            "ppo.responses_per_prompt=3",
            "ppo.responses_per_step (128) must be a multiple of ppo.responses_per_prompt (3)",
        ),
        (
            "dpo.loss=ipo dpo.label_smoothing=0.1",
            "dpo.label_smoothing (0.1) must be 0 with dpo.loss (ipo): only the sigmoid is a likelihood of labels",
        ),
        (
            "ppo.reward_from=gold data=hh_rlhf data.path=x labeler=dataset",
            "ppo.reward_from (gold) needs a gold rater, but data.source is hh_rlhf: choose "
            "ppo.reward_from=reward_model, data=world, or reviews for data.rater",
        ),
        (
            "ppo.top_p=0.9",
            "ppo.top_p: no such setting, and on purpose: it would sample from another policy than the one that is scored "
            "and trained, and the KL would come out negative",
        ),
        ("ppo.clip_range=1", "ppo.clip_range (1) must be a finite number above 0 and below 1 or null"),
        (
            "data.max_response_tokens=128",
            "data.max_response_tokens (128) must be below model.max_tokens (128): no room is left for a prompt",
        ),
        (
            "model=local model.path=models/mine model.max_tokens=40",
            "data.max_response_tokens (40) must be below model.max_tokens (40): no room is left for a prompt",
        ),
        (
            "model.chat_template=mine",
            "model.chat_template must be null with model.source (tiny): the words of the plain one are in the vocabulary "
            "that is made here. Choose model=local or model=hub",
        ),
        *(
            (
                f"model=hub model.id=owner/name model.revision={revision}",
                f"model.revision ({revision}) must be a commit in full, 40 digits of 0-9 and a-f, because a branch or a tag "
                "can move: copy one from https://huggingface.co/owner/name/commits/main",
            )
            for revision in ("main", "v1.0", COMMIT[:7], COMMIT + "0", COMMIT.replace("a", "g"))
        ),
        (
            f"model=hub model.id=null model.revision={COMMIT}",
            "model.id and model.revision are missing: a hub model is reproducible at a pinned commit only",
        ),
        *(
            (
                f"data.{name}=0",
                f"data.{name} (0) must be at least 1 with data.source (world): 0 means all of a file, and this is none",
            )
            for name in ("documents", "demonstrations", "prompts")
        ),
        (
            "data.rater=reviews.zip",
            "data.rater (reviews.zip) does not go with data.source (world): the world has its own rater",
        ),
        (
            "data=files data.path=x labeler=dataset data.language=zh",
            "data.language (zh) must be en with data.source (files): it chooses the world's table, and other data "
            "are in the language they are in",
        ),
        (
            "data=stories data.path=x data.rater=reviews.zip data.pattern=*.txt",
            "data.pattern (*.txt) must be null with data.source (stories): they are one file, and it chooses among several",
        ),
        (
            "data=stories data.path=x data.rater=reviews.zip data.stories=null",
            "data.stories (null) does not go with data.source (stories): it is where stories are cut. Choose data=stories",
        ),
        (
            "data=stories data.path=x data.rater=conf/prepare/default.yaml",
            "labeler.name (gold) needs a gold rater, but data.source is stories: choose labeler=judge or "
            "labeler=reward_model, labeler=dataset where the data bring preferences, data=world, or reviews for data.rater",
        ),
        *(
            (
                f"{data} data.{setting}={value}",
                f"data.{setting} ({value}) must be {usual} with data.source ({source}): it says how rows of a table are "
                "read, and there are none",
            )
            for data, source in (
                ("data=stories data.path=x data.rater=reviews.zip", "stories"),
                ("data=world", "world"),
            )
            for setting, value, usual in (
                ("columns.prompt", "text", "null"),
                ("margin_per_score", "0.5", "0.0"),
            )
        ),
        ("sample.models=[sft,sft]", "sample.models (sft, sft) must name each model once"),
        (
            "sample.responses_per_prompt=1",
            "sample.responses_per_prompt (1) must be at least 2 with labeler.name (gold): it ranks responses",
        ),
        (
            "evaluate.judge=gold data=hh_rlhf data.path=x labeler=dataset",
            "evaluate.judge (gold) needs a gold rater, but data.source is hh_rlhf: choose evaluate.judge=auto, "
            "data=world, or reviews for data.rater",
        ),
        *(
            (
                f"{labeler} sample.responses_per_prompt=1",
                f"sample.responses_per_prompt (1) must be at least 2 with labeler.name ({name}): it ranks responses",
            )
            for labeler, name in (
                ("labeler=judge endpoint.model=m", "judge"),
                ("labeler=reward_model labeler.path=m", "reward_model"),
            )
        ),
        ("labeler=reward_model", "labeler.path has no value: set it, as in labeler.path=VALUE"),
        (
            "labeler=judge",
            "labeler.path (conf/labeler/judge.yaml) and endpoint.model (null): the judge is one of the two, a folder on "
            "this machine (labeler.path=DIR) or a model of a server (endpoint.model=NAME)",
        ),
        (
            "labeler=judge labeler.path=models/judge endpoint.model=m",
            "labeler.path (models/judge) and endpoint.model (m): the judge is one of the two, a folder on this machine "
            "(labeler.path=DIR) or a model of a server (endpoint.model=NAME)",
        ),
        *(
            (
                f"labeler=judge endpoint.model=m labeler.pairs_per_prompt={pairs}",
                f"labeler.pairs_per_prompt ({pairs}) must be 0 (all pairs) or from 3 to 6 with sample.responses_per_prompt "
                "(4): no response may be left out",
            )
            for pairs in (2, 7)
        ),
        (
            "labeler.check_pairs=5",
            "labeler.check_pairs (5) must be 0 with labeler.name (gold): only labeler=judge and labeler=reward_model can be "
            "asked about the data's own pairs",
        ),
        (
            "labeler=judge endpoint.model=m labeler.check_pairs=5",
            "labeler.check_pairs (5) must be 0 with data.source (world): the world brings no pairs of its own; its rater is "
            "asked about every pair",
        ),
        (
            "labeler.temperature=0",
            "labeler.temperature (0) must be above 0 with labeler.name (gold): a person who never errs is no person",
        ),
        (
            "dpo.rounds=2 labeler=judge endpoint.model=m",
            "dpo.rounds (2) must be 1 with labeler.name (judge): from the second round on somebody has to label new "
            "answers, and only labeler=gold can",
        ),
        ("endpoint.concurrency=0", "endpoint.concurrency (0) must be a whole number of at least 1 and at most 256"),
        ("endpoint.timeout_seconds=0", "endpoint.timeout_seconds (0) must be a finite number above 0"),
        ("evaluate.judge=me", "evaluate.judge (me) must be one of auto, gold, reward_model, python"),
        (
            "evaluate.judge=python",
            "evaluate.scorer (conf/evaluate/default.yaml) does not go with evaluate.judge (python): python needs a file of "
            "yours, NAME.py, and no other judge reads one",
        ),
        (
            "evaluate.scorer=mine.py",
            "evaluate.scorer (mine.py) does not go with evaluate.judge (auto): python needs a file of yours, NAME.py, and "
            "no other judge reads one",
        ),
        (
            "engine=zero0 engine.dtype=bfloat16",
            "engine.dtype (bfloat16) does not go with engine.name (zero0), where DeepSpeed makes a step of Adam before the "
            "first one: choose engine=zero1",
        ),
        (
            "engine=zero3_offload optimizer.bits=8",
            "optimizer.bits (8) needs a GPU, and engine.name (zero3_offload) makes its steps on the CPU: set "
            "optimizer.bits=32, or choose engine=zero3",
        ),
        (
            "engine.processes=2",
            "engine.processes (2) must be 1 with engine.name (single): choose engine=zero1, zero2, zero3 or zero3_offload",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_name_the_value_and_what_it_must_be(overrides: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        compose(*overrides.split())
    assert str(caught.value) == message


def test_every_fault_gets_its_line() -> None:
    with pytest.raises(UserError) as caught:
        compose("ppo.lr=nan", "dpo.beta=0")
    assert sorted(str(caught.value).splitlines()) == [
        "dpo.beta (0) must be a finite number above 0",
        "ppo.lr (nan) must be a finite number above 0",
    ]


def test_of_a_file_0_means_all() -> None:
    data = compose("data=files", "data.path=x.jsonl", "labeler=dataset").data
    assert (data.documents, data.demonstrations, data.prompts) == (0, 0, 0)


def test_the_language_of_the_world_brings_its_table_and_its_lengths_unless_they_are_set() -> None:
    english, chinese = compose("data.language=en"), compose("data.language=zh")
    assert english == compose()
    assert (english.data.path, chinese.data.path) == ("data/world/english.yaml", "data/world/chinese.yaml")
    assert (english.data.max_response_tokens, chinese.data.max_response_tokens) == (40, 64)
    changed = {"language": "zh", "path": chinese.data.path, "file": chinese.data.path, "max_response_tokens": 64}
    assert chinese == english.model_copy(update={"data": english.data.model_copy(update=changed)})
    mine = compose("data.language=zh", "data.path=mine.yaml", "data.max_response_tokens=50").data
    assert (mine.path, mine.max_response_tokens) == ("mine.yaml", 50)


@pytest.mark.parametrize(
    ("path", "watched"), [("docs", "docs"), ("README.md", "README.md"), ("owner/name", None), ("???", None)]
)
@pytest.mark.parametrize("name", OWN_DATA)
def test_dvc_watches_the_data_where_they_lie_here_and_else_the_settings(name: str, path: str, watched: str | None) -> None:
    composed = settings.compose(ROOT, [f"data={name}", f"data.path='{path}'", "labeler=dataset"])
    assert composed.data.file == (watched or f"conf/data/{name}.yaml")
    assert (ROOT / composed.data.file).exists()


def test_data_are_looked_for_beneath_the_root_wherever_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omegaconf import OmegaConf

    monkeypatch.chdir(tmp_path)
    OmegaConf.clear_resolver("watched")
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        composed = hydra_compose("config", overrides=["data=files", "data.path=docs"])
    assert composed.data.file == "docs", "as DVC composes it"


def test_settings_that_another_process_composed_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    from omegaconf import OmegaConf

    monkeypatch.chdir(ROOT)
    composed = OmegaConf.create({"data": {"path": "docs", "file": "${watched:conf/data/files.yaml}"}})
    OmegaConf.clear_resolver("watched")
    assert settings.values_of(composed)["data"]["file"] == "docs"


@pytest.mark.parametrize(
    ("overrides", "reaches"),
    [
        (["model=local", "model.path=x"], False),
        (["model=hub", "model.id=owner/name", f"model.revision={COMMIT}"], True),
        (["model=hub", "model.id=owner/name", f"model.revision={COMMIT}", "model.path=x"], False),
        (["model=qwen2.5-7b", "model.path=x"], False),
        (["data=shp", "data.path=owner/name", f"data.revision={COMMIT}", "labeler=dataset"], True),
        (["data=shp", "data.path=owner/name", "labeler=dataset"], False),
    ],
)
def test_a_model_or_data_of_the_hub_need_the_network(overrides: list[str], reaches: bool) -> None:
    assert compose(*overrides).reaches_hub is reaches


def test_a_model_by_name_keeps_its_name_its_commit_and_its_rates_where_a_folder_has_its_files() -> None:
    named, there = compose("model=qwen2.5-7b"), compose("model=qwen2.5-7b", "model.path=models/mine")
    assert named.model.place == ("Qwen/Qwen2.5-7B", named.model.revision)
    assert there.model.place == ("models/mine", None)
    assert there == named.model_copy(update={"model": named.model.model_copy(update={"path": "models/mine"})})


def test_columns_of_ones_own() -> None:
    given = ("data=files", "data.path=data/mine.jsonl", "labeler=dataset")
    columns = compose(*given, 'data.columns={prompt: "用户", completion: LLM}').data.columns
    assert columns.named() == {"prompt": "用户", "completion": "LLM"}


def test_settings_become_flat_and_lose_nothing() -> None:
    assert settings.flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": 1, "a.c": {}, "d": [1, 2]}
