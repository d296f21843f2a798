"""Low-rank adapters (LoRA, Hu et al. 2021) by peft, and models that stand on one trunk.

Models may share their trunk's weights, each with layers, adapters and a head of its own: a policy, its reference (the same
without the adapter), a reward model and a critic then cost one trunk. They stay ordinary models of transformers: what is
shared are tensors, and those stand still.

An adapter's weights are float32 whatever the trunk computes in: they are what learns. (Under ZeRO DeepSpeed casts them,
and their masters are float32.) The product of a new one is 0, and
the model it stands in says what it said before, to the bit.

peft is imported where it is used: it takes half a second, for which a stage without adapters need not wait.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf import config
from rlhf.errors import UserError

if TYPE_CHECKING:
    from peft import LoraConfig

FOLDER = "adapter"  # inside a model's own
WEIGHTS = "adapter_model.safetensors"
HEAD = "score"
BASE, SFT, REWARD = (f"artifacts/{stage}/model" for stage in ("base", "sft", "reward"))  # what adapters are added to
ALL = "all-linear"  # peft's word for every linear layer but the head
PREFIX = "base_model.model."  # of the names in a file of peft's

Module = TypeVar("Module", bound=nn.Module)


def adapt(model: PreTrainedModel, lora: config.Lora, seed: int, base: str) -> None:
    """Puts an adapter into the model, which from now on learns nothing else, but for a scalar head; at rank 0 none.

    base: where the weights that it is added to lie, for those who read the adapter later.

    Raises:
        UserError: the model has no such layers.
    """
    if not lora.rank:
        return
    from peft import LoraConfig, TaskType

    settings = LoraConfig(
        task_type=TaskType.SEQ_CLS if _head(model) else TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        target_modules=list(lora.targets) or ALL,
        base_model_name_or_path=base,
    )
    try:
        _inject(model, settings, seed)
    except ValueError as error:
        named, reason = ", ".join(lora.targets) or "none named", " ".join(str(error).split())
        raise UserError(f"lora.targets ({named}): no adapter can be put into the model ({reason})") from error
    learn_small(model)


def _inject(model: PreTrainedModel, settings: LoraConfig, seed: int) -> None:
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it finds out by itself which way round GPT-2 has its weights, and says so
        torch.manual_seed(seed)  # peft draws one of an adapter's two factors, on the CPU
        inject_adapter_in_model(settings, model)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.float()


def has_adapter(model: nn.Module) -> bool:
    return any("lora_" in name for name, _ in model.named_parameters())


def _head(model: nn.Module) -> nn.Module | None:
    head = getattr(model, HEAD, None)
    return head if isinstance(head, nn.Module) else None


def _small(model: nn.Module) -> Iterator[nn.Parameter]:
    """What learns where there is an adapter: it, and a scalar head."""
    return (w for name, w in model.named_parameters() if "lora_" in name or name.startswith(f"{HEAD}."))


def learn_small(model: nn.Module) -> None:
    """The model learns its adapter and its scalar head and nothing else; all of it where it has no adapter."""
    model.requires_grad_(not has_adapter(model))
    for weight in _small(model):
        weight.requires_grad_(True)


def on_the_same_trunk(model: Module) -> Module:
    """Another model that says the same, with adapter and head of its own, and all other weights the same tensors."""
    own = {id(weight) for weight in _small(model)}
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters() if id(weight) not in own})


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its adapter worked into weights of its own, as stock transformers reads it; itself if it has none."""
    if not has_adapter(model):
        return model
    from peft.tuners.lora import LoraLayer

    whole = on_the_same_trunk(model)
    layers: list[tuple[str, Any]] = [(name, part) for name, part in whole.named_modules() if isinstance(part, LoraLayer)]
    for name, layer in layers:
        plain = layer.get_base_layer()
        plain.weight = nn.Parameter(plain.weight.detach().clone())  # the trunk's own stays as it is
        layer.merge()
        whole.set_submodule(name, plain)
    del whole.peft_config
    return whole


def save_adapter(model: PreTrainedModel, directory: Path) -> None:
    """The adapter in peft's form; a reward model's head goes with it."""
    from peft import get_peft_model_state_dict

    settings: Any = copy.deepcopy(model.peft_config["default"])
    weights: dict[str, Tensor] = dict(get_peft_model_state_dict(model, save_embedding_layers=False))
    if head := _head(model):
        settings.modules_to_save = [HEAD]
        weights |= {f"{HEAD}.{name}": weight for name, weight in head.state_dict().items()}
    settings.inference_mode = True
    settings.target_modules = sorted(settings.target_modules)  # a set has another order in every process
    settings.save_pretrained(str(directory))
    save_file({PREFIX + name: weight.detach().cpu().contiguous() for name, weight in weights.items()}, directory / WEIGHTS)


def load_adapter(model: PreTrainedModel, directory: Path) -> None:
    """Puts a saved adapter, and the head that goes with it, into a model that stands on the same trunk."""
    from peft import LoraConfig, set_peft_model_state_dict

    settings: Any = LoraConfig.from_pretrained(str(directory))
    settings.modules_to_save = None
    _inject(model, settings, seed=0)
    weights = {name.removeprefix(PREFIX): weight for name, weight in load_file(directory / WEIGHTS).items()}
    if head := _head(model):
        head.load_state_dict({name: weights.pop(f"{HEAD}.{name}") for name in list(head.state_dict())})
    set_peft_model_state_dict(model, weights)


def base_of(directory: Path) -> str | None:
    """Where the weights lie that a model's adapter was added to; None where it has no adapter."""
    if not (directory / FOLDER).is_dir():
        return None
    from peft import LoraConfig

    return str(LoraConfig.from_pretrained(str(directory / FOLDER)).base_model_name_or_path)
