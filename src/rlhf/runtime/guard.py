"""Holds params.yaml, which DVC reads, to conf/, which people edit, and looks at the inputs.

`dvc exp run` composes conf/ into params.yaml; `dvc repro` never does, and would call an edit of conf/ up to date.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.runtime import processes, settings
from rlhf.runtime.messages import Values, shown

SAME = "params.yaml is what conf/ composes to"
WRITE = "python stages/config.py --write"
KEEP = "python stages/config.py --keep"
ABSENT = object()
LARGE = 50_000_000  # parameters: a model that learns at the rates of conf/model/hub.yaml
TOO_FAST = 10.0  # times those rates
FOLLOWS = "data.file"  # from data.path, which may be another when the experiment is run


def check(root: Path) -> str:
    """UserError if params.yaml is unfit, or is not what conf/ composes to, or if an input is unfit; else what it is.

    While an experiment runs, DVC itself has just composed its settings, and there is nothing to compare.
    """
    snapshot = settings.values_of(settings.read_snapshot(root))
    experiment = os.environ.get("DVC_EXP_NAME")
    what = f"params.yaml is what DVC composed for the experiment {experiment}" if experiment else compare(root, snapshot)
    check_inputs(root, settings.validate(snapshot))
    return what


def check_inputs(root: Path, config: Config) -> None:
    """UserError if `prepare` would refuse the data, `base` the model, `label` its labeler, or `evaluate` a scorer.

    Here, because DVC removes what a stage left before it lets the stage find out.
    """
    # Imported here: they import torch, which a misspelt setting should not have to wait for, and a model's transformers.
    from rlhf.data import prepared, sources
    from rlhf.data.scorer import load_scorer
    from rlhf.data.sentiment import learn, read_reviews
    from rlhf.seeds import derive_seed

    processes.keep_offline(config.reaches_hub)
    if config.evaluate.judge == "python":
        load_scorer(root, config.evaluate.scorer)
    with contextlib.chdir(root):
        seed_of = functools.partial(derive_seed, config.seed, "prepare")
        made = sources.prepare(config.data, config.prepare, seed_of)
        prepared.check(made, config)
        if config.labeler.name == "dataset" and not (made.preferences or made.rankings):
            processes.tell(
                f"config: WARNING: {config.data.path} brings no preferences, and labeler.name is dataset, which makes none: "
                "`sft` is as far as this goes, and `label` will stop with nothing to label. To go on to the end choose "
                "labeler=judge or labeler=reward_model, or other data"
            )
        if config.data.learns_rater:
            learn(read_reviews(Path(config.data.rater)).found)
        _check_model(root, config)
        check_labeler(config)


def _check_model(root: Path, config: Config) -> None:
    """UserError if `base` would refuse the model, weights aside; of one on the hub, its config and tokenizer are fetched.
    What is allowed, but hardly meant, is said."""
    model = config.model
    if model.source == "tiny":
        return
    from rlhf.models.folder import check_model

    seen, (place, _) = check_model(model, config.data.max_response_tokens), model.place
    if model.max_tokens > seen.context:
        processes.tell(
            f"config: WARNING: {place} was made for {seen.context} tokens, and model.max_tokens is {model.max_tokens}: "
            f"prompt and response together get {seen.context}, and longer prompts are cut on their left"
        )
    if seen.parameters > LARGE and not config.lora.rank:
        _warn_of_rates(root, config, place, seen.parameters)


def _warn_of_rates(root: Path, config: Config, place: str, parameters: int) -> None:
    """One line about learning rates that are those of a tiny model."""
    from omegaconf import OmegaConf

    hub: Any = OmegaConf.to_container(OmegaConf.load(root / "conf" / "model" / "hub.yaml"))
    usual = {name: rate for name, rate in settings.flatten(hub).items() if name.endswith("lr")}
    ours = settings.flatten(config.model_dump())
    high = {name: rate for name, rate in usual.items() if ours[name] > TOO_FAST * rate}
    if high:
        processes.tell(
            f"config: WARNING: {place} has {parameters / 1e6:,.0f} million parameters, and the learning rates are those of "
            f"a tiny model: {', '.join(f'{name}={ours[name]:g}' for name in high)}. conf/model/hub.yaml has, for models of "
            f"0.1 to 10 billion, {' '.join(f'{name}={rate:g}' for name, rate in high.items())}"
        )


def check_labeler(config: Config) -> None:
    """UserError if the judge's template, its folder or the address of its server, or the reward model's folder is unfit."""
    from rlhf.data.question import load_template

    labeler = config.labeler
    match labeler.name:
        case "judge":
            load_template(labeler.template)
            if labeler.is_folder:
                from rlhf.models.judge import check_judge

                check_judge(Path(labeler.path))
            else:
                from rlhf.runtime.endpoint.address import address_from_environment

                address_from_environment()
        case "reward_model":
            from rlhf.models.folder import check_reward_model

            check_reward_model(Path(labeler.path))


def compare(root: Path, snapshot: Values) -> str:
    """UserError with what differs between params.yaml and conf/, unless an applied experiment accounts for all of it."""
    composed = settings.values_of(settings.compose(root))
    changed = differences(snapshot, composed)
    if not changed:
        return SAME
    lines = [f"  {key}: {_side(old)} in params.yaml, {_side(new)} in conf/" for key, (old, new) in changed.items()]
    experiment = applied_experiment(root)
    if experiment is None or composed_at(root, experiment) != composed:
        raise UserError("\n".join(["params.yaml is not what conf/ composes to:", *lines, f"To take over conf/: {WRITE}"]))
    return "\n".join(
        [
            f"params.yaml has the settings of experiment {experiment.rpartition('/')[2]}, which was run or applied here:",
            *lines,
            f"To keep them as conf/experiment/NAME.yaml: {KEEP} NAME; then, to run them: dvc exp run -S experiment=NAME",
            f"To drop them and go back to conf/: {WRITE}",
        ]
    )


def write(root: Path) -> None:
    """params.yaml anew, byte for byte as `dvc exp run` writes it."""
    from omegaconf import OmegaConf

    composed = settings.compose(root)
    settings.validate(settings.values_of(composed))
    (root / "params.yaml").write_text(OmegaConf.to_yaml(composed), encoding="utf-8")


def keep(root: Path, name: str, run: Path | None = None) -> Path:
    """conf/experiment/NAME.yaml with what params.yaml has of its own, for `dvc exp run -S experiment=NAME`.

    run: the folder of a direct run, or of a job of a sweep, whose settings are kept in place of those of params.yaml.
    """
    from omegaconf import OmegaConf

    path = root / "conf" / "experiment" / f"{name}.yaml"
    if not name.isidentifier() or path.exists():
        raise UserError(f"--keep {name}: give a new name of letters, digits and _, to become conf/experiment/NAME.yaml")
    snapshot = settings.values_of(settings.read_snapshot(root) if run is None else settings.read_of_run(run))
    snapshot.pop("sweep", None)  # how the run was launched
    if run is not None:
        snapshot.pop("seed", None)  # that of one training; as a setting it would be the whole pipeline's
    changed = differences(snapshot, settings.values_of(settings.compose(root)))
    nested = OmegaConf.create()
    for key, (value, _) in changed.items():
        if value is not ABSENT and key != FOLLOWS:
            OmegaConf.update(nested, key, value)
    path.write_text("# @package _global_\n" + OmegaConf.to_yaml(nested), encoding="utf-8")
    return path


def differences(snapshot: Values, composed: Values) -> dict[str, tuple[Any, Any]]:
    """The dotted names under which the two have other values, with both; ABSENT where one has none."""
    left, right = settings.flatten(snapshot), settings.flatten(composed)
    pairs = {key: (left.get(key, ABSENT), right.get(key, ABSENT)) for key in left | right}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def applied_experiment(root: Path) -> str | None:
    """The git reference of the DVC experiment, if any, whose params.yaml is the one that lies here."""
    mine = _git(root, "hash-object", "params.yaml").decode()
    for reference in _git(root, "for-each-ref", "--format=%(refname)", "refs/exps/??/*/*").decode().split():
        if mine and _git(root, "rev-parse", "--verify", "--quiet", f"{reference}:./params.yaml").decode() == mine:
            return reference
    return None


def composed_at(root: Path, reference: str) -> Values:
    """What conf/ composed to in another commit."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(io.BytesIO(_git(root, "archive", "--format=zip", reference, "conf"))) as archive:
            archive.extractall(folder)
        return settings.values_of(settings.compose(root, conf=Path(folder) / "conf"))


def _side(value: Any) -> str:
    return "nothing" if value is ABSENT else shown(value)


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False).stdout
