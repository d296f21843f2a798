"""conf/ and the command line become one validated `Config`, before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.runtime.messages import Values, explain
from rlhf.runtime.overrides import check_names, hydra_messages

if TYPE_CHECKING:
    from omegaconf import DictConfig

NO_RESULT = ("checkpoint.", "sweep.", "tracking.")  # dotted names that begin so: no result depends on them


def compose(root: Path, overrides: Sequence[str] = (), conf: Path | None = None) -> DictConfig:
    """What conf/ says with these overrides, exactly as DVC composes it (`dvc.utils.hydra.compose_and_dump`).

    conf: another folder of settings than root/conf, for the inputs of this root.
    """
    from omegaconf import OmegaConf

    from hydra_plugins.watched_input import watch

    with hydra_messages():
        composed = _compose(conf or root / "conf", overrides, with_hydra=False)
        watch(root)
        OmegaConf.resolve(composed)
    return composed


def compose_beside_hydra(root: Path, overrides: Sequence[str]) -> tuple[Values, DictConfig]:
    """The settings, and Hydra's own."""
    from omegaconf import DictConfig, OmegaConf

    with hydra_messages():
        composed = _compose(root / "conf", overrides, with_hydra=True)
        ours = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        assert isinstance(ours, DictConfig)
        return values_of(ours), composed.hydra


def _compose(conf: Path, overrides: Sequence[str], with_hydra: bool) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    check_names(conf, overrides)
    with initialize_config_dir(str(conf), version_base=None):
        return hydra_compose("config", overrides=list(overrides), return_hydra_config=with_hydra)


def values_of(composed: DictConfig) -> Values:
    """Plain values; UserError naming every setting that still waits for one (`???`)."""
    from omegaconf import OmegaConf

    from hydra_plugins.watched_input import watch

    if not OmegaConf.has_resolver("watched"):  # another process composed it: that of a sweep
        watch(Path())
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise UserError("\n".join(f"{key} has no value: set it, as in {key}=VALUE" for key in missing))
    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def read_snapshot(root: Path) -> DictConfig:
    """params.yaml, with the number syntax of Hydra (1e-3 is a number)."""
    from omegaconf import DictConfig, OmegaConf
    from yaml import YAMLError

    path = root / "params.yaml"
    if not path.is_file():
        raise UserError("params.yaml is missing: write it with `python stages/config.py --write`")
    try:
        snapshot = OmegaConf.load(path)
    except YAMLError as error:
        raise UserError(f"params.yaml is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(snapshot, DictConfig) or not snapshot:
        raise UserError("params.yaml holds no settings: write it anew with `python stages/config.py --write`")
    return snapshot


def read_of_run(folder: Path) -> DictConfig:
    """The settings of a direct run or of a job of a sweep, as Hydra left them in its folder."""
    from omegaconf import DictConfig, OmegaConf

    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path} is missing: name the folder of a run, as in runs/ppo/<time> or sweeps/ppo/<time>/0")
    found = OmegaConf.load(path)
    assert isinstance(found, DictConfig)
    return found


def validate(values: Values) -> Config:
    """The settings as frozen sections; UserError with a line for each that is unknown, missing or out of range."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(explain(dict(problem)) for problem in error.errors(include_url=False))) from error


def flatten(values: Any, prefix: str = "") -> Values:
    """{"ppo": {"lr": 1}} as {"ppo.lr": 1}; an empty mapping stays as it is, so that nothing gets lost."""
    if not isinstance(values, dict) or not values:
        return {prefix: values}
    flat: Values = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def describe(values: Values, params: Sequence[str] | None) -> str:
    """The settings that a stage uses, by dotted names, as YAML; all of them for None."""
    from omegaconf import OmegaConf

    used = OmegaConf.create(values)
    return OmegaConf.to_yaml(OmegaConf.masked_copy(used, _sections(params)) if params else used).rstrip()


def _sections(params: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(param.partition(".")[0] for param in params))
