"""Reward models and critics: a stock sequence classifier with one label.

A stock head has no bias. The centre of the scores is therefore kept in the model's config (`reward_center`, and
`reward_scale` beside it) and taken off by our own reading (`forward.token_outputs`): stock loading gives the same
scores, times the scale, plus the centre.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf import config
from rlhf.errors import UserError
from rlhf.models.adapters import (
    FOLDER,
    REWARD,
    SFT,
    adapt,
    base_of,
    has_adapter,
    learn_small,
    load_adapter,
    on_the_same_trunk,
)
from rlhf.models.attention import attention_kernel
from rlhf.models.classifiers import check_classifier, register_classifier
from rlhf.models.place import weight_files
from rlhf.models.policy import refuse_missing, save_pretrained, without_dropout
from rlhf.models.precision import DTYPES, compute_in
from rlhf.models.tokens import reading

HEAD_WEIGHT = "score.weight"


def load_reward_model(path: str | Path, device: torch.device, engine: config.Engine) -> PreTrainedModel:
    """A sequence classifier with one label, dropout off, in evaluation mode, on the device, computing as the engine says."""
    model, missing = _load(path, device, engine)
    refuse_missing(path, missing)
    return model


def load_reward_model_beside(
    reference: PreTrainedModel, path: Path, device: torch.device, engine: config.Engine, lora: config.Lora
) -> PreTrainedModel:
    """`load_reward_model`; on the reference's trunk where adapters learn, and this model is an adapter of its weights."""
    settings = AutoConfig.from_pretrained(str(path), num_labels=1, trust_remote_code=False)
    theirs, ours = (one.get_text_config().num_hidden_layers for one in (reference.config, settings))
    if not lora.rank or base_of(path) != SFT or theirs != ours:
        return load_reward_model(path, device, engine)
    register_classifier(settings)
    with torch.device("meta"):  # the form of it, and no memory for weights that it will not have
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(settings)
    setattr(model, model.base_model_prefix, on_the_same_trunk(reference.base_model))
    model.score = nn.Linear(settings.get_text_config().hidden_size, 1, bias=False, device=device)
    load_adapter(model, path / FOLDER)
    return without_dropout(model).eval()


def _load(
    path: str | Path, device: torch.device, engine: config.Engine, layers: int | None = None
) -> tuple[PreTrainedModel, set[str]]:
    """The classifier, of so many layers where they are given, and the names of the weights that its file does not hold."""
    with reading(path):
        settings = AutoConfig.from_pretrained(str(path), num_labels=1, trust_remote_code=False)
        check_classifier(path, settings)
        model, found = AutoModelForSequenceClassification.from_pretrained(
            str(path),
            config=settings if layers is None else of_first_layers(settings, layers),
            dtype=DTYPES[engine.dtype],
            attn_implementation=attention_kernel(engine, device, AutoModelForSequenceClassification, settings),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # which are then told of, and refused here
        )
        refuse_other_sizes(path, found["mismatched_keys"])
    missing = set(found["missing_keys"])
    if HEAD_WEIGHT not in missing:
        _keep_exact(model, path)
    compute_in(model, engine.dtype)
    return without_dropout(model).to(device).eval(), missing


def _keep_exact(model: PreTrainedModel, path: str | Path) -> None:
    """The head as its file has it, in float32, whatever the rest was rounded to."""
    for file in weight_files(Path(path)):
        with safe_open(file, framework="pt") as tensors:
            if HEAD_WEIGHT in tensors.keys():  # noqa: SIM118 (it is no dict)
                model.score.weight = nn.Parameter(tensors.get_tensor(HEAD_WEIGHT).float())  # type: ignore[union-attr]


def refuse_other_sizes(path: str | Path, mismatched: Iterable[tuple[str, torch.Size, torch.Size]]) -> None:
    """UserError for weights of other sizes than a classifier with one label has; first of all its head."""
    for name, theirs, ours in sorted(mismatched, key=lambda found: found[0] != HEAD_WEIGHT):
        if name == HEAD_WEIGHT:
            raise UserError(f"{path}: is a classifier with {theirs[0]} labels; a reward model has one, the score")
        raise UserError(f"{path}: {name} is {tuple(theirs)} in its file and {tuple(ours)} by its config.json")


def of_first_layers(settings: PretrainedConfig, layers: int) -> PretrainedConfig:
    """What the config says of a model that ends after so many layers; UserError where there are fewer."""
    trunk = settings.get_text_config()
    whole = trunk.num_hidden_layers
    if layers > whole:
        raise UserError(f"reward.layers ({layers}) must be at most {whole}: the SFT model has so many")
    if layers == whole:
        return settings
    trunk.num_hidden_layers = layers
    for name, value in trunk.to_dict().items():
        if isinstance(value, list | tuple) and len(value) == whole and not name.endswith("token_id"):
            setattr(trunk, name, value[:layers])  # a value a layer, as in layer_types
    return type(settings).from_dict(settings.to_dict())  # as it will be read: what cannot be is refused here


def reward_model_from_policy(
    path: str | Path, device: torch.device, engine: config.Engine, seed: int, layers: int | None = None
) -> PreTrainedModel:
    """The policy's trunk under a new scalar head drawn from N(0, 1 / (d + 1)) (Stiennon et al. 2020), d the hidden size.

    Args:
        layers: so many of the trunk's layers, the first ones; None: all.

    Raises:
        UserError: it has fewer.
    """
    model, missing = _load(path, device, engine, layers)
    refuse_missing(path, missing - {HEAD_WEIGHT})
    head = model.score
    assert isinstance(head, nn.Linear)
    noise = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        head.weight.copy_(noise / (head.in_features + 1) ** 0.5)
    return model


def centre_scores(model: PreTrainedModel, scores: torch.Tensor, scale: bool) -> None:
    """Moves the model's zero to the mean of these scores (N,), and on wish its unit to their standard deviation."""
    old_centre, old_scale = getattr(model.config, "reward_center", 0.0), getattr(model.config, "reward_scale", 1.0)
    model.config.reward_center = old_centre + old_scale * float(scores.double().mean())
    if scale:
        model.config.reward_scale = old_scale * float(scores.double().std(correction=0).clamp(min=1e-6))


def critic_from_reward_model(reward_model: PreTrainedModel, lora: config.Lora, seed: int) -> PreTrainedModel:
    """A copy that may learn: before its first step, its value after the last token is the score.

    seed: of its adapter, where adapters learn and the reward model has none that it could start from.
    """
    critic = on_the_same_trunk(reward_model) if lora.rank else copy.deepcopy(reward_model)
    if not has_adapter(critic):
        adapt(critic, lora, seed, REWARD)
    learn_small(critic)
    return critic


def start_from_policy(critic: PreTrainedModel, policy: PreTrainedModel) -> None:
    """Gives a critic the trunk of the policy, all its layers, and a head of zeros that centres and scales nothing."""
    trunk = policy.base_model
    setattr(critic, critic.base_model_prefix, on_the_same_trunk(trunk) if has_adapter(policy) else copy.deepcopy(trunk))
    learn_small(critic)
    critic.config = copy.deepcopy(policy.config)
    with torch.no_grad():
        critic.score.weight.zero_()  # type: ignore[union-attr, operator]
    critic.config.reward_center, critic.config.reward_scale = 0.0, 1.0


def save_reward_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """A Hugging Face sequence classifier with one label; its config says where the scores' zero is."""
    save_pretrained(model, tokenizer, directory)
