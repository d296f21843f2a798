"""Reward models: a stock head, its zero in the config, and a critic that starts from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlhf.errors import UserError
from rlhf.models.batching import Batching
from rlhf.models.forward import scores_of, token_outputs, values_of
from rlhf.models.policy import save_policy
from rlhf.models.precision import compute_in
from rlhf.models.reward import (
    centre_scores,
    critic_from_reward_model,
    load_reward_model,
    reward_model_from_policy,
    save_reward_model,
)
from tests.helpers import ROUNDING, assert_near
from tests.models.tiny_models import EOS, NO_ADAPTER, PAD, engine_settings, make_classifier, make_policy, random_examples

CPU = torch.device("cpu")
EXAMPLES = random_examples(6, longest=7)


def stock_scores(directory: Path) -> torch.Tensor:
    """By stock transformers alone: each whole text by itself."""
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    with torch.no_grad():
        ids = [torch.tensor([e.prompt_ids + e.response_ids]) for e in EXAMPLES]
        return torch.stack([model(input_ids=row).logits[0, 0] for row in ids])


@pytest.mark.parametrize("scale", [True, False])
def test_stock_scores_are_ours_times_the_scale_plus_the_centre(
    architecture: str, scale: bool, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = make_classifier(architecture, vocab_size=len(tokenizer))
    raw = scores_of(model, EXAMPLES, Batching(PAD, 40))
    centre_scores(model, raw, scale)
    save_reward_model(model, tokenizer, tmp_path)
    loaded = load_reward_model(tmp_path, CPU, engine_settings())
    ours = scores_of(loaded, EXAMPLES, Batching(PAD, 40))
    assert_near(ours.double().mean(), 0.0, 1e-6)
    spread = raw.double().std(correction=0)
    assert_near(ours.double().std(correction=0), 1.0 if scale else spread, 1e-5)
    centre, unit = loaded.config.reward_center, float(spread) if scale else 1.0
    assert_near(centre, raw.double().mean(), 1e-6)
    assert_near(stock_scores(tmp_path), ours * unit + centre, 1e-5)
    assert_near(stock_scores(tmp_path), raw, 1e-5)


def test_centring_keeps_the_order_and_centring_again_changes_nothing(classifier: PreTrainedModel) -> None:
    raw = scores_of(classifier, EXAMPLES, Batching(PAD, 40))
    centre_scores(classifier, raw, scale=True)
    once = scores_of(classifier, EXAMPLES, Batching(PAD, 40))
    assert once.argsort().tolist() == raw.argsort().tolist()
    centre_scores(classifier, once, scale=True)
    assert_near(scores_of(classifier, EXAMPLES, Batching(PAD, 40)), once, 1e-5)
    centre_scores(classifier, once + 3.0, scale=False)
    assert_near(scores_of(classifier, EXAMPLES, Batching(PAD, 40)), once - 3.0, 1e-5)


def test_scores_that_are_all_alike_do_not_divide_by_zero(classifier: PreTrainedModel) -> None:
    centre_scores(classifier, torch.full((4,), 2.5), scale=True)
    assert scores_of(classifier, EXAMPLES, Batching(PAD, 40)).isfinite().all()


def test_a_reward_model_is_the_policys_trunk_under_a_new_head(
    architecture: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    policy = make_policy(architecture, vocab_size=len(tokenizer), seed=7)
    save_policy(policy, tokenizer, tmp_path, 8)
    model, again, other = (reward_model_from_policy(tmp_path, CPU, engine_settings(), seed) for seed in (1, 1, 2))
    trunk = policy.base_model.state_dict()
    assert all(torch.equal(value, trunk[name]) for name, value in model.base_model.state_dict().items())
    assert torch.equal(model.score.weight, again.score.weight)
    assert not torch.equal(model.score.weight, other.score.weight)
    assert model.score.weight.shape == (1, policy.config.hidden_size)
    assert getattr(model.score, "bias", None) is None
    assert model.config.num_labels == 1


@pytest.mark.parametrize("labels", [2, 5])
def test_a_classifier_of_several_labels_is_no_reward_model(architecture: str, labels: int, tmp_path: Path) -> None:
    make_classifier(architecture, num_labels=labels).save_pretrained(tmp_path)
    with pytest.raises(UserError) as caught:
        load_reward_model(tmp_path, CPU, engine_settings())
    assert str(caught.value) == f"{tmp_path}: is a classifier with {labels} labels; a reward model has one, the score"


def test_a_weight_of_another_size_than_the_config_says_is_named(tmp_path: Path) -> None:
    make_classifier("llama").save_pretrained(tmp_path)
    settings = tmp_path / "config.json"
    settings.write_text(settings.read_text().replace('"intermediate_size": 24', '"intermediate_size": 32'))
    with pytest.raises(UserError) as caught:
        load_reward_model(tmp_path, CPU, engine_settings())
    assert "proj.weight is (" in str(caught.value)
    assert str(caught.value).endswith(" by its config.json")


def deep_policy(kind: str, size: int) -> PreTrainedModel:
    """Three layers; in the last two kinds each has an attention of its own, which the config lists."""
    sizes = {"vocab_size": size, "hidden_size": 16, "initializer_range": 0.4}
    torch.manual_seed(3)
    if kind == "qwen3":
        types = ["sliding_attention", "full_attention", "sliding_attention"]
        sizes |= {"num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
        qwen3 = Qwen3Config(**sizes, intermediate_size=24, use_sliding_window=True, sliding_window=3, layer_types=types)
        return Qwen3ForCausalLM(qwen3).eval()
    if kind == "gpt_neo":
        types = [[["local", "global"], 1], [["local"], 1]]
        return GPTNeoForCausalLM(
            GPTNeoConfig(**sizes, num_layers=3, num_heads=2, window_size=3, attention_types=types)
        ).eval()
    return make_policy(kind, vocab_size=size, num_hidden_layers=3)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3", "gpt_neo"])
def test_a_smaller_reward_model_ends_after_the_policys_first_layers(
    kind: str, layers: int, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Stock transformers reads it, and says what the policy's own hidden states say under its last norm."""
    policy = deep_policy(kind, len(tokenizer))
    save_policy(policy, tokenizer, tmp_path / "policy", 8)
    made = reward_model_from_policy(tmp_path / "policy", CPU, engine_settings(), 1, layers)
    trunk = policy.base_model.state_dict()
    assert all(torch.equal(value, trunk[name]) for name, value in made.base_model.state_dict().items())
    save_reward_model(made, tokenizer, tmp_path / "reward")

    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    assert stock.config.num_hidden_layers == layers
    norm = policy.base_model.ln_f if hasattr(policy.base_model, "ln_f") else policy.base_model.norm
    ids = torch.tensor([EXAMPLES[0].prompt_ids + EXAMPLES[0].response_ids])
    with torch.no_grad():
        after = policy.base_model(input_ids=ids, output_hidden_states=True).hidden_states[layers][0, -1]
        assert_near(stock(input_ids=ids).logits[0, 0], made.score.weight[0] @ norm(after), 1e-5)


def test_more_layers_than_the_policys_are_refused(
    architecture: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    save_policy(deep_policy(architecture, len(tokenizer)), tokenizer, tmp_path, 8)
    whole, as_many = (reward_model_from_policy(tmp_path, CPU, engine_settings(), 1, layers) for layers in (None, 3))
    for ours, theirs in zip(whole.parameters(), as_many.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(UserError) as caught:
        reward_model_from_policy(tmp_path, CPU, engine_settings(), 1, 5)
    assert str(caught.value) == "reward.layers (5) must be at most 3: the SFT model has so many"


def test_a_new_head_is_drawn_with_variance_one_over_d_plus_one(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    save_policy(make_policy("llama", vocab_size=len(tokenizer), hidden_size=1024), tokenizer, tmp_path, 8)
    weight = reward_model_from_policy(tmp_path, CPU, engine_settings(), 0).score.weight.detach()
    assert_near(weight.std() * 1025**0.5, 1.0, 0.1)
    assert abs(float(weight.mean())) * 1025**0.5 < 0.1


def test_a_critic_starts_as_the_reward_model_and_learns_alone(classifier: PreTrainedModel, precision: str) -> None:
    compute_in(classifier, precision)
    centre_scores(classifier, torch.tensor([1.0, 5.0]), scale=True)
    classifier.requires_grad_(False)
    critic = critic_from_reward_model(classifier, NO_ADAPTER, seed=0)
    assert all(p.requires_grad for p in critic.parameters())
    for ours, theirs in zip(critic.parameters(), classifier.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()
    asked_once_more = [type(e)(e.prompt_ids, [*e.response_ids, EOS]) for e in EXAMPLES]
    last_values = torch.stack([row[-1] for row in values_of(critic, asked_once_more, Batching(PAD, 500))])
    assert_near(last_values, scores_of(classifier, EXAMPLES, Batching(PAD, 500)), ROUNDING[precision])
    ids = torch.tensor([EXAMPLES[0].prompt_ids])
    before = token_outputs(classifier, ids)
    with torch.no_grad():
        for p in critic.parameters():
            p.add_(1.0)
    assert torch.equal(token_outputs(classifier, ids), before)
    assert not any(p.requires_grad for p in classifier.parameters())
