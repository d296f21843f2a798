"""Low-rank adapters: new ones change nothing, what they learn is theirs alone, and stock peft and transformers read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from rlhf.config import Lora
from rlhf.errors import UserError
from rlhf.models import adapters
from rlhf.models.adapters import adapt, base_of, has_adapter, load_adapter, merged, on_the_same_trunk, save_adapter
from rlhf.models.forward import response_logprobs, response_scores
from rlhf.models.tokens import collate
from tests.helpers import ROUNDING, assert_near
from tests.models.tiny_models import PAD, make_classifier, make_policy, random_examples

LORA = Lora(rank=4, alpha=8.0, targets=[])
BATCH = collate(random_examples(5), PAD)


def says(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return response_scores(model, BATCH) if hasattr(model, "score") else response_logprobs(model, BATCH)


def make(kind: str, architecture: str, precision: str = "float32") -> PreTrainedModel:
    return {"policy": make_policy, "classifier": make_classifier}[kind](architecture, precision=precision)


def learn(model: PreTrainedModel) -> PreTrainedModel:
    """Every weight that may learn moves."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight), alpha=0.1)
    return model


KINDS = pytest.mark.parametrize("kind", ["policy", "classifier"])


@KINDS
def test_a_new_adapter_changes_no_bit(kind: str, architecture: str, precision: str) -> None:
    model = make(kind, architecture, precision)
    before = says(model)
    adapt(model, LORA, 0, "base")
    assert torch.equal(says(model), before)


@KINDS
def test_the_adapter_learns_and_a_scalar_head_and_nothing_else(kind: str, architecture: str, precision: str) -> None:
    model = make(kind, architecture, precision)
    adapt(model, LORA, 0, "base")
    learns = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    layers = 2 * {"llama": 7, "gpt2": 4}[architecture]  # linear layers of a block
    assert sum("lora_" in name for name in learns) == 2 * layers
    assert {name for name in learns if "lora_" not in name} == ({"score.weight"} if kind == "classifier" else set())
    assert {weight.dtype for weight in learns.values()} == {torch.float32}
    assert all(LORA.rank in weight.shape for name, weight in learns.items() if "lora_" in name)


def test_the_seed_draws_the_adapter_and_nothing_else_does() -> None:
    drawn = []
    for seed, noise in ((0, 1), (0, 2), (1, 2)):
        torch.manual_seed(noise)
        model = make_policy("llama")
        adapt(model, LORA, seed, "base")
        drawn.append(torch.cat([w.flatten() for n, w in model.named_parameters() if "lora_A" in n]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


def test_layers_can_be_named_and_names_that_are_none_are_refused() -> None:
    model = make_policy("llama")
    adapt(model, LORA.model_copy(update={"targets": ["q_proj"]}), 0, "base")
    assert {name.split(".")[-4] for name, weight in model.named_parameters() if weight.requires_grad} == {"q_proj"}
    with pytest.raises(UserError, match=r"lora\.targets \(qproj\): no adapter can be put into the model"):
        adapt(make_policy("llama"), LORA.model_copy(update={"targets": ["qproj"]}), 0, "base")


def test_at_rank_0_there_is_none() -> None:
    model = make_policy("llama")
    adapt(model, LORA.model_copy(update={"rank": 0}), 0, "base")
    assert not has_adapter(model)
    assert all(weight.requires_grad for weight in model.parameters())
    assert merged(model) is model


@KINDS
def test_models_on_one_trunk_share_its_weights_and_nothing_that_learns(kind: str, architecture: str, precision: str) -> None:
    model = make(kind, architecture, precision)
    reference, before = on_the_same_trunk(model), says(model)
    adapt(model, LORA, 0, "base")
    other = on_the_same_trunk(model)
    learn(model)
    assert not torch.equal(says(model), before)
    assert torch.equal(says(reference), before)
    assert torch.equal(says(other), before)
    shared = {id(weight) for weight in model.parameters() if not weight.requires_grad}
    trunk = {id(weight) for name, weight in reference.named_parameters() if not name.startswith("score")}
    assert shared == trunk <= {id(weight) for weight in other.parameters()}


@KINDS
def test_merged_it_says_the_same_and_leaves_the_trunk_alone(kind: str, architecture: str) -> None:
    model = make(kind, architecture)
    reference, before = on_the_same_trunk(model), says(model)
    adapt(model, LORA, 0, "base")
    now = says(learn(model))
    whole = merged(model)
    assert_near(says(whole), now, ROUNDING["float32"])
    assert not has_adapter(whole)
    assert whole.state_dict().keys() == reference.state_dict().keys()
    assert torch.equal(says(reference), before)
    assert torch.equal(says(model), now)


@KINDS
def test_stock_peft_reads_the_adapter_and_so_do_we(kind: str, architecture: str, tmp_path: Path) -> None:
    model = make(kind, architecture)
    reference = on_the_same_trunk(model)
    reference.save_pretrained(tmp_path / "base")
    adapt(model, LORA, 0, "artifacts/sft/model")
    now = says(learn(model))
    save_adapter(model, tmp_path / "model" / adapters.FOLDER)

    targets = json.loads((tmp_path / "model" / adapters.FOLDER / "adapter_config.json").read_text())["target_modules"]
    assert targets == sorted(targets)  # the same bytes in every process
    again = on_the_same_trunk(reference)
    load_adapter(again, tmp_path / "model" / adapters.FOLDER)
    assert torch.equal(says(again), now)
    assert base_of(tmp_path / "model") == "artifacts/sft/model"
    assert base_of(tmp_path / "base") is None

    if kind == "policy":
        stock: nn.Module = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    else:
        stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    theirs = PeftModel.from_pretrained(stock, str(tmp_path / "model" / adapters.FOLDER)).eval()
    assert torch.equal(says(theirs.base_model.model), now)
