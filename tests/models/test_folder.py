"""What a user's model folder lacks is said before anything depends on it, and with the weights unread."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertGenerationConfig,
    BertGenerationDecoder,
    BloomConfig,
    BloomForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf.errors import UserError
from rlhf.models.folder import check_folder, check_reward_model
from rlhf.models.policy import load_policy, save_policy
from rlhf.models.reward import load_reward_model, reward_model_from_policy, save_reward_model
from tests.models.test_tokens import bare
from tests.models.tiny_models import CONTEXT, engine_settings, make_classifier, make_policy

MODEL, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"


@pytest.fixture
def folder(architecture: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Path:
    save_policy(make_policy(architecture, vocab_size=len(tokenizer)), tokenizer, tmp_path / "model", 9)
    return tmp_path / "model"


def refusal(folder: Path, max_tokens: int = 0, max_response_tokens: int = 9) -> str:
    with pytest.raises(UserError) as caught:
        check_folder(folder, max_tokens, max_response_tokens)
    (line,) = str(caught.value).splitlines()
    return line


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_a_whole_folder_passes_and_only_the_heads_of_its_weights_are_read(folder: Path) -> None:
    check_folder(folder, 0, CONTEXT - 1)
    weights = (folder / MODEL).read_bytes()
    head = 8 + int.from_bytes(weights[:8], "little")
    (folder / MODEL).write_bytes(weights[:head] + b"\xff" * (len(weights) - head))
    assert any(torch.isnan(tensor).any() for tensor in load_file(folder / MODEL).values())
    check_folder(folder, 0, CONTEXT - 1)


def test_weights_in_several_files_pass_and_each_must_be_there(folder: Path) -> None:
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="4KB")
    (folder / MODEL).unlink(missing_ok=True)
    shards = sorted(folder.glob("*-of-*.safetensors"))
    assert len(shards) > 1
    check_folder(folder, 0, 9)
    shards[1].unlink()
    assert refusal(folder).startswith(f"{folder}: no model can be loaded from it (")
    assert shards[1].name in refusal(folder)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (CONFIG, "holds no config.json; name a Hugging Face model directory"),
        (MODEL, "holds no model.safetensors: weights are read as safetensors only"),
        (TOKENIZER, "no tokenizer can be loaded from it ("),
    ],
)
def test_what_is_not_there_is_said(folder: Path, file: str, message: str) -> None:
    (folder / file).unlink()
    assert refusal(folder).startswith(f"{folder}: {message}")
    assert file in refusal(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").startswith(f"{tmp_path / 'none'}: no such folder")


def test_other_weights_than_safetensors_are_told_how_to_become_them(folder: Path) -> None:
    (folder / MODEL).rename(folder / "pytorch_model.bin")
    assert refusal(folder).endswith(
        "where there are others, convert them with transformers: from_pretrained, save_pretrained"
    )


def test_the_stage_run_directly_says_what_the_guard_says(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_policy(make_policy("llama", vocab_size=len(tokenizer)), tokenizer, folder, 9)
    (folder / MODEL).rename(folder / "pytorch_model.bin")
    expected = refusal(folder)
    settings = ["model=local", f"model.path={folder}", "data.max_response_tokens=9", f"hydra.run.dir={tmp_path / 'run'}"]
    command = [sys.executable, str(ROOT / "stages" / "base.py"), *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"base: {expected}"
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"x"', '{"model_type": "no such model"}', '{"model_type": "t5"}'])
def test_a_configuration_of_no_language_model(folder: Path, text: str) -> None:
    (folder / CONFIG).write_text(text, encoding="utf-8")
    assert refusal(folder).startswith(f"{folder}: no model can be loaded from it (")


def test_an_architecture_that_cannot_have_a_classifier_cannot_become_a_reward_model(
    folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings = BertGenerationConfig(**sizes, intermediate_size=8, max_position_embeddings=CONTEXT)
    save_policy(BertGenerationDecoder(settings), tokenizer, folder, 9)
    assert refusal(folder).startswith(f"{folder}: transformers has no sequence classifier with a linear head for the ")
    with pytest.raises(UserError, match="architecture bert-generation"):
        reward_model_from_policy(folder, torch.device("cpu"), engine_settings(), seed=0)


@pytest.mark.parametrize(
    "model",
    [
        OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=8, n_embd=8, n_layer=1, n_head=2, n_positions=CONTEXT)),
        MambaForCausalLM(MambaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1)),
    ],
    ids=["openai-gpt", "mamba"],
)
def test_an_architecture_that_samples_in_a_way_of_its_own_is_refused(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    save_policy(model, tokenizer, folder, 9)
    kind = model.config.model_type
    assert refusal(folder).startswith(f"{folder}: models of the architecture {kind} have another cache than ")


def test_a_chat_template_of_the_users_own_is_tried_on_a_question(folder: Path) -> None:
    check_folder(folder, 0, 9, "{{ messages[0]['content'] }}")
    with pytest.raises(UserError) as caught:
        check_folder(folder, 0, 9, "{% for message in messages %}")
    assert str(caught.value).startswith("the tokenizer's chat template refuses a conversation of the roles user: ")


@pytest.mark.parametrize("template", ["", "hello", "{{ messages[0]['role'] }}"])
def test_a_chat_template_that_does_not_show_what_is_asked_is_refused(folder: Path, template: str) -> None:
    with pytest.raises(UserError, match=r"model: model\.chat_template says the same of two questions"):
        check_folder(folder, 0, 9, template)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    assert refusal(folder).startswith(f"{folder}: the tokenizer's chat template says the same of two questions")
    check_folder(folder, 0, 9, "{{ messages[0]['content'] }}")


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"'])
@pytest.mark.parametrize("file", [TOKENIZER, TOKENIZER_CONFIG])
def test_a_broken_tokenizer(folder: Path, file: str, text: str) -> None:
    (folder / file).write_text(text, encoding="utf-8")
    assert refusal(folder).startswith(f"{folder}: no tokenizer can be loaded from it (")


def test_a_tokenizer_without_an_end_token(folder: Path) -> None:
    (folder / TOKENIZER_CONFIG).unlink()
    bare().save_pretrained(folder)
    assert refusal(folder).startswith(f"{folder}: the tokenizer has no end token (eos_token)")


def test_weights_that_were_cut_off(folder: Path) -> None:
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-1])
    assert refusal(folder).startswith(f"{folder}: no model can be loaded from it (")


@pytest.mark.parametrize("kind", ["policy", "reward model"])
def test_a_weight_that_is_missing_or_of_another_shape_is_said_before_and_while_loading(
    folder: Path, kind: str, architecture: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    if kind == "reward model":
        save_reward_model(make_classifier(architecture, vocab_size=len(tokenizer)), tokenizer, folder)
    whole = load_file(folder / MODEL)
    name = next(name for name in whole if "mlp" in name and name.endswith("weight"))
    shape = tuple(whole[name].shape)

    def refusals() -> list[str]:
        found = []
        for read in (
            lambda: check_folder(folder, 0, 9) if kind == "policy" else check_reward_model(folder),
            lambda: (load_policy if kind == "policy" else load_reward_model)(folder, CPU, engine_settings()),
        ):
            with pytest.raises(UserError) as caught:
                read()
            found.append(str(caught.value))
        return found

    save_file({other: whole[other] for other in whole if other != name}, folder / MODEL, {"format": "pt"})
    assert refusals() == [f"{folder}: 1 of the model's weights are not in its file: {name}"] * 2
    save_file(whole | {name: whole[name].flatten()[1:].clone()}, folder / MODEL, {"format": "pt"})
    before, after = refusals()
    assert before == f"{folder}: {name} is ({shape[0] * shape[1] - 1},) in its file and {shape} by its config.json"
    assert after.startswith(f"{folder}: ")


def test_a_language_model_whose_config_has_one_label_is_no_reward_model(
    folder: Path, architecture: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    save_policy(make_policy(architecture, vocab_size=len(tokenizer)), tokenizer, folder, 9)
    with pytest.raises(UserError) as caught:
        check_reward_model(folder)
    assert str(caught.value) == f"{folder}: 1 of the model's weights are not in its file: score.weight"


@pytest.mark.parametrize(("max_tokens", "context"), [(0, CONTEXT), (50, 50), (1000, CONTEXT)])
def test_a_response_must_leave_room_for_a_prompt(folder: Path, max_tokens: int, context: int) -> None:
    check_folder(folder, max_tokens, context - 1)
    assert refusal(folder, max_tokens, context) == (
        f"data.max_response_tokens ({context}) must be below the context of {context} tokens: no room is left for a prompt"
    )


def test_a_context_that_nobody_gives(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    model = BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), hidden_size=8, n_layer=1, n_head=2))
    save_policy(model, tokenizer, tmp_path, 9)
    check_folder(tmp_path, 64, 9)
    assert refusal(tmp_path).startswith("model.max_tokens (0) must be set")


def test_a_language_model_is_no_reward_model(folder: Path) -> None:
    known = json.loads((folder / CONFIG).read_text())
    (kind,) = known["architectures"]
    labels = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    (folder / CONFIG).write_text(json.dumps(known | labels))
    with pytest.raises(UserError) as caught:
        check_reward_model(folder)
    assert str(caught.value).startswith(f"{folder}: is no classifier: its config.json says {kind}. Name a sequence ")
