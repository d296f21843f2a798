"""Policies as directories that stock transformers read, and as functions without chance in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf.errors import UserError
from rlhf.models.batching import Batching
from rlhf.models.card import write_policy
from rlhf.models.forward import logprobs_of
from rlhf.models.generation import Decoding, generate
from rlhf.models.policy import context_of, fit_to_tokenizer, load_policy, save_policy, without_dropout
from rlhf.models.reward import critic_from_reward_model, load_reward_model, reward_model_from_policy
from rlhf.models.tokens import complete_tokenizer, encode_prompt, end_id, load_tokenizer, pad_id
from rlhf.records import Message
from tests.helpers import assert_near
from tests.models.tiny_models import (
    CONTEXT,
    NO_ADAPTER,
    PAD,
    engine_settings,
    make_classifier,
    make_policy,
    random_examples,
    random_ids,
)

CPU = torch.device("cpu")
QUESTION = (Message("user", "one two ?"),)
NEW_TOKENS = 9


def opt_with_dropout() -> PreTrainedModel:
    """Its layers read their dropout from attributes and call the function, and it may skip whole layers."""
    sizes: dict[str, Any] = {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    return OPTForCausalLM(
        OPTConfig(vocab_size=23, dropout=0.5, attention_dropout=0.5, layerdrop=0.5, word_embed_proj_dim=16, **sizes)
    )


@pytest.mark.parametrize(
    "model",
    [make_policy("gpt2", dropout=0.1), make_policy("llama", attention_dropout=0.5), opt_with_dropout()],
    ids=["gpt2", "llama", "opt"],
)
def test_without_dropout_two_passes_in_training_mode_agree(model: PreTrainedModel) -> None:
    ids = random_ids(4, 20, seed=0)
    model.train()
    assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    without_dropout(model)
    trained = model(input_ids=ids).logits
    assert torch.equal(model(input_ids=ids).logits, trained)
    assert_near(trained, model.eval()(input_ids=ids).logits, 1e-6)
    made_anew = type(model)(model.config).train()  # as whoever reads what is saved may make it
    assert torch.equal(made_anew(input_ids=ids).logits, made_anew(input_ids=ids).logits)


def test_dropout_is_off_in_all_four_models(
    architecture: str, precision: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """As they are loaded: policy, reference, reward model, critic, and in training mode too."""
    rate = {"llama": {"attention_dropout": 0.5}, "gpt2": {"dropout": 0.5}}[architecture]
    policy = make_policy(architecture, vocab_size=len(tokenizer), **rate)
    assert passes_differ(policy)
    save_policy(policy, tokenizer, tmp_path / "sft", NEW_TOKENS)
    make_classifier(architecture, vocab_size=len(tokenizer), **rate).save_pretrained(tmp_path / "reward")
    policy, reference = (load_policy(tmp_path / "sft", CPU, engine_settings(dtype=precision)) for _ in range(2))
    reward_model = load_reward_model(tmp_path / "reward", CPU, engine_settings(dtype=precision))
    new_reward_model = reward_model_from_policy(tmp_path / "sft", CPU, engine_settings(dtype=precision), seed=0)
    for model in (
        policy,
        reference,
        reward_model,
        new_reward_model,
        critic_from_reward_model(reward_model, NO_ADAPTER, seed=0),
    ):
        assert not passes_differ(model)
        assert not [module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.p > 0]


def passes_differ(model: PreTrainedModel) -> bool:
    """Of the same tokens, in training mode."""
    ids = random_ids(4, 20, seed=0)
    model.train()
    return not torch.equal(model.base_model(ids)[0], model.base_model(ids)[0])


@pytest.mark.parametrize("tied", [True, False])
def test_room_is_made_for_a_new_pad_token(architecture: str, tied: bool, tokenizer: PreTrainedTokenizerBase) -> None:
    """The new token's row is the mean of the others, before and behind the trunk; old tokens keep their logits."""
    old = len(tokenizer) - 1
    model = make_policy(architecture, vocab_size=old, tie_word_embeddings=tied)
    ids = random_ids(2, 6, seed=0)
    before = model(input_ids=ids).logits.detach()
    after = fit_to_tokenizer(model, tokenizer)(input_ids=ids).logits.detach()
    assert after.shape[-1] == old + 1
    assert_near(after[..., :old], before, 1e-6)
    assert_near(after[..., old], before.mean(-1), 1e-5)
    for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        assert_near(table[old], table[:old].mean(0), 1e-6)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) is tied
    assert (model.config.vocab_size, model.config.pad_token_id) == (old + 1, pad_id(tokenizer))


def test_a_model_with_room_to_spare_stays_as_large_as_it_is(architecture: str, tokenizer: PreTrainedTokenizerBase) -> None:
    model = make_policy(architecture, vocab_size=len(tokenizer) + 7)
    assert fit_to_tokenizer(model, tokenizer).config.vocab_size == len(tokenizer) + 7
    assert model.config.eos_token_id == end_id(tokenizer)


@pytest.fixture
def saved(architecture: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Path:
    """Saved, loaded by us, and saved again: so a path had every chance to get in."""
    once, twice = tmp_path / "once", tmp_path / "twice"
    save_policy(without_dropout(make_policy(architecture, vocab_size=len(tokenizer))), tokenizer, once, NEW_TOKENS)
    save_policy(load_policy(once, CPU, engine_settings()), load_tokenizer(once), twice, NEW_TOKENS)
    return twice


def test_stock_transformers_give_our_greedy_answer(saved: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(saved), AutoTokenizer.from_pretrained(saved)
    messages = [{"role": "user", "content": QUESTION[0].content}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    theirs = model.generate(**inputs, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()

    ours_tokenizer = load_tokenizer(saved)
    prompt, _ = encode_prompt(ours_tokenizer, QUESTION, CONTEXT)
    ends = (end_id(ours_tokenizer), pad_id(ours_tokenizer))
    (ours,) = generate(load_policy(saved, CPU, engine_settings()), [prompt], Decoding(*ends, NEW_TOKENS), None, seed=0)
    assert theirs == ours.response_ids


def test_stock_generate_samples_from_the_policy_as_it_is(saved: Path) -> None:
    """No top-k, no top-p, and the temperature of training, 1 where it had none: what stock `generate` does by default."""
    settings = AutoModelForCausalLM.from_pretrained(saved).generation_config
    assert (settings.do_sample, settings.temperature, settings.top_k, settings.top_p) == (True, 1.0, 0, 1.0)
    assert settings.max_new_tokens == NEW_TOKENS
    assert settings.pad_token_id != settings.eos_token_id


def test_the_temperature_of_training_stays_with_the_policy(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """For stock `generate`, and for who reads the card."""
    write_policy(policy, tokenizer, tmp_path, "A policy", "Trained.", max_response_tokens=NEW_TOKENS, temperature=0.7)
    settings = AutoModelForCausalLM.from_pretrained(tmp_path).generation_config
    assert (settings.do_sample, settings.temperature, settings.top_k, settings.top_p) == (True, 0.7, 0, 1.0)
    assert "`generate` samples at temperature 0.7, as in training" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_nothing_of_this_machine_is_in_the_directory(saved: Path, tmp_path: Path) -> None:
    texts = [path for path in saved.iterdir() if path.suffix in {".json", ".jinja", ".md", ".txt"}]
    assert {path.name for path in texts} >= {"config.json", "generation_config.json", "tokenizer_config.json"}
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert str(tmp_path) not in text, path.name
        assert str(Path.home()) not in text, path.name
    assert not json.loads((saved / "config.json").read_text()).get("_name_or_path")


def test_saving_twice_writes_the_same_bytes(saved: Path) -> None:
    once = saved.parent / "once"
    assert sorted(p.name for p in once.iterdir()) == sorted(p.name for p in saved.iterdir())
    for path in once.iterdir():
        assert path.read_bytes() == (saved / path.name).read_bytes(), path.name


def test_weights_are_what_the_model_computes_in(saved: Path, architecture: str) -> None:
    half, full = load_policy(saved, CPU, engine_settings(dtype="bfloat16")), load_policy(saved, CPU, engine_settings())
    assert (half.dtype, full.dtype) == (torch.bfloat16, torch.float32)
    assert not half.training
    examples = random_examples(4, seed=0)
    coarse, fine = (torch.cat(logprobs_of(policy, examples, Batching(PAD, 64))) for policy in (half, full))
    assert 0 < float((coarse - fine).abs().max()) < 0.1  # rounded to eight bits somewhere, and no more than that


def test_the_context_is_the_smaller_of_the_models_and_the_settings(policy: PreTrainedModel) -> None:
    assert [context_of(policy, limit) for limit in (0, 50, 1000)] == [CONTEXT, 50, CONTEXT]


def test_a_model_that_does_not_say_its_context_needs_the_setting() -> None:
    model = BloomForCausalLM(BloomConfig(vocab_size=23, hidden_size=8, n_layer=1, n_head=2))
    assert context_of(model, 64) == 64
    with pytest.raises(UserError, match=r"model.max_tokens \(0\) must be set"):
        context_of(model, 0)


def test_a_tokenizer_completed_late_and_a_model_fitted_to_it_save_together(architecture: str, tmp_path: Path) -> None:
    """A pretrained model whose tokenizer has no pad token: complete, fit, save, and load by stock means."""
    from tests.models.test_tokens import bare

    tokenizer = complete_tokenizer(bare(eos_token="<end>"), "bare")
    model = fit_to_tokenizer(make_policy(architecture, vocab_size=4, eos_token_id=1, pad_token_id=None), tokenizer)
    save_policy(model, tokenizer, tmp_path, NEW_TOKENS)
    stock, stock_tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert (stock.config.vocab_size, stock.config.pad_token_id, stock_tokenizer.pad_token_id) == (5, 4, 4)
    inputs = stock_tokenizer(["a b a", "b"], return_tensors="pt", padding=True)
    assert inputs["input_ids"][1].tolist()[0] == 4
    assert stock.generate(**inputs, do_sample=False).shape[0] == 2


def test_a_file_without_some_of_the_weights_is_refused(architecture: str, tmp_path: Path) -> None:
    """Stock loading draws them at random and goes on."""
    make_policy(architecture).save_pretrained(tmp_path)
    load_policy(tmp_path, CPU, engine_settings())
    reward_model_from_policy(tmp_path, CPU, engine_settings(), seed=0)
    weights = load_file(tmp_path / "model.safetensors")
    lost = sorted(name for name in weights if "mlp" in name)[0]
    save_file(
        {name: value for name, value in weights.items() if name != lost}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    message = re.escape(f"{tmp_path}: 1 of the model's weights are not in its file: {lost}")
    with pytest.raises(UserError, match=message):
        load_policy(tmp_path, CPU, engine_settings())
    with pytest.raises(UserError, match=message):
        reward_model_from_policy(tmp_path, CPU, engine_settings(), seed=0)


def test_a_policy_is_no_reward_model(tmp_path: Path) -> None:
    make_policy("llama").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"weights are not in its file: score\.weight"):
        load_reward_model(tmp_path, CPU, engine_settings())
