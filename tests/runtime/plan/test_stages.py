"""Which models a stage holds, and with what: by counting bytes of a parameter."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AlbertConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    PretrainedConfig,
)

from rlhf import config
from rlhf.errors import UserError
from rlhf.models.sizes import Layer, Linear, Sizes
from rlhf.runtime import settings
from rlhf.runtime.plan.models import Labeler, Models, models_of
from rlhf.runtime.plan.rules import Pass
from rlhf.runtime.plan.stages import Stage, stages_of
from tests.runtime.conftest import ROOT
from tests.runtime.plan.test_rules import LLAMA

LAYER = Layer(parameters=100, outputs=50, attended=8, middle=12, activated=24, layer_norms=0, rms_norms=16)
POLICY = Sizes(
    parameters=1000,
    layers=3,
    layer=LAYER,
    hidden=8,
    vocabulary=20,
    context=64,
    heads=2,
    key_values=48,
    linears=(Linear("q_proj", 8, 8),) * 3,
    attention="sdpa",
    soft_capped=False,
)
CLASSIFIER = replace(POLICY, parameters=900)
SHORT = replace(CLASSIFIER, parameters=500, layers=1)


def composed(*overrides: str) -> config.Config:
    return settings.validate(settings.values_of(settings.compose(ROOT, overrides)))


def stage(name: str, *overrides: str, models: Models | None = None) -> Stage:
    held = models or Models(POLICY, CLASSIFIER, CLASSIFIER)
    (found,) = [one for one in stages_of(composed(*overrides), held) if one.name == name]
    return found


def bytes_of(found: Stage) -> dict[str, float]:
    return {name: state.total for name, state in found.held.items()}


def test_each_stage_is_there_in_the_order_of_the_pipeline() -> None:
    names = [one.name for one in stages_of(composed(), Models(POLICY, CLASSIFIER, CLASSIFIER))]
    assert names == ["base", "sft", "sample", "reward", "ppo", "dpo", "evaluate"]


def labeling(name: str, *overrides: str, causal: bool = True, template: int = 0, **changes: Any) -> Stage:
    """Stage label, the labeler's model being of a context of 100 tokens and of as many layers as the policy, but wider."""
    sizes = replace(POLICY, **{"parameters": 7000, "context": 100, "hidden": 16, "vocabulary": 30} | changes)
    models = Models(POLICY, CLASSIFIER, CLASSIFIER, Labeler(sizes, causal, template))
    return stage("label", f"labeler={name}", "labeler.path=DIR", *overrides, models=models)


def test_whoever_labels_by_a_model_holds_it_alone_after_the_samples() -> None:
    models = Models(POLICY, CLASSIFIER, None, Labeler(CLASSIFIER, causal=True, template=0))
    names = [one.name for one in stages_of(composed("labeler=reward_model", "labeler.path=DIR"), models)]
    assert names == ["base", "sft", "sample", "label", "reward", "ppo", "dpo", "evaluate"]
    assert list(models.named())[-1] == "labeler"
    zero3 = ("engine=zero3", "engine.processes=4")  # it stands still: whole in every process
    assert bytes_of(labeling("reward_model", *zero3)) == {"labeler": 4 * 7000}
    assert bytes_of(labeling("judge", "engine.dtype=bfloat16")) == {"labeler": 2 * 7000}


def test_a_reward_model_that_labels_reads_micro_batches_and_has_no_logits() -> None:
    """In flight of a token: two of the trunk's 16, and three of the middle's 12; of rows of 64 tokens, as the policy's."""
    for micro_batch, tokens in ((256, 256), (1, 64)):
        (one,) = labeling("reward_model", f"engine.tokens_per_micro_batch={micro_batch}").passes
        assert one == Pass("scores", activations=tokens * 4 * (2 * 16 + 3 * 12))
    (cut,) = labeling("reward_model", "engine.tokens_per_micro_batch=1", context=50).passes
    assert cut.activations == 50 * 4 * (2 * 16 + 3 * 12)


def test_a_judge_reads_two_responses_and_the_template_and_says_one_letter() -> None:
    """64 tokens of the prompt and a response, 10 of the other, 20 of the template: 94; logits of one token a row."""
    small = ("data.max_response_tokens=10", "engine.tokens_per_micro_batch=1", "data.languages.en.max_response_tokens=10")
    (one,) = labeling("judge", *small, template=20).passes
    assert (one.name, one.activations, one.logits) == ("verdicts", 94 * 4 * (2 * 16 + 3 * 12), 3 * 4 * 30)
    (many,) = labeling("judge", *small[::2], "engine.tokens_per_micro_batch=300", template=20).passes
    assert (many.activations, many.logits) == (300 * 4 * (2 * 16 + 3 * 12), 3 * 3 * 4 * 30)
    (cut,) = labeling("judge", *small, template=1000).passes
    assert cut.activations == 100 * 4 * (2 * 16 + 3 * 12)


def test_one_that_reads_both_ways_stays_in_float32_and_takes_its_own_kernel() -> None:
    sdpa = ("engine.dtype=bfloat16", "engine.attention=sdpa", "engine.tokens_per_micro_batch=128")
    found = labeling("reward_model", *sdpa, causal=False, attention="eager")
    assert bytes_of(found) == {"labeler": 4 * 7000}
    matrices = 2 * 128 * (2 * 64 * 4)  # two of them: 128 tokens x 2 heads x rows of 64
    assert found.passes[0].activations == 128 * 4 * (2 * 16 + 3 * 12) + matrices
    causal = labeling("reward_model", *sdpa, attention="eager")
    assert causal.passes[0].activations == 128 * 2 * (2 * 16 + 3 * 12)


@pytest.mark.parametrize("overrides", [(), ("labeler=judge", "endpoint.model=NAME")])
def test_where_no_model_labels_or_a_server_has_it_there_is_none(overrides: tuple[str, ...]) -> None:
    models = models_of(composed(*overrides))
    assert models.labeler is None
    assert "label" not in [one.name for one in stages_of(composed(*overrides), models)]


BERT = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)


@pytest.mark.parametrize(
    ("name", "kind", "made_by", "causal"),
    [
        ("judge", LLAMA, AutoModelForCausalLM, True),
        ("reward_model", LLAMA, AutoModelForSequenceClassification, True),
        ("reward_model", BERT, AutoModelForSequenceClassification, False),
    ],
)
def test_a_labeler_is_measured_by_its_config(
    name: str, kind: PretrainedConfig, made_by: Any, causal: bool, tmp_path: Path
) -> None:
    kind = copy.deepcopy(kind)
    kind.num_labels = 1
    kind.save_pretrained(tmp_path)
    asked = composed(f"labeler={name}", f"labeler.path={tmp_path}")
    labeler = models_of(asked).labeler
    assert labeler is not None
    real = sum(p.nbytes for p in made_by.from_config(kind).parameters())
    assert (4 * labeler.sizes.parameters, labeler.causal) == (real, causal)
    assert (
        bytes_of(stage("label", *(f"labeler={name}", f"labeler.path={tmp_path}"), models=models_of(asked)))["labeler"]
        == real
    )
    words = "You compare two responses of an assistant to the same conversation and say which one is better."
    assert (labeler.template > len(words)) == (name == "judge")


def test_a_labeler_that_is_not_there_or_is_not_understood_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        models_of(composed("labeler=judge", "labeler.path=nowhere"))
    AlbertConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="the 12 layers of a albert model are not found: its memory cannot be planned"):
        models_of(composed("labeler=reward_model", f"labeler.path={tmp_path}"))


def test_ppo_has_two_models_that_learn_and_two_that_stand_still() -> None:
    assert bytes_of(stage("ppo")) == {"policy": 16000, "critic": 14400, "reference": 4000, "reward model": 3600}
    bfloat16 = bytes_of(stage("ppo", "engine.dtype=bfloat16"))
    assert bfloat16 == {"policy": 18000, "critic": 16200, "reference": 2000, "reward model": 1800}


@pytest.mark.parametrize("choice", ["ppo=shared", "ppo=rloo", "ppo=grpo"])
def test_without_a_critic_of_its_own_there_are_three(choice: str) -> None:
    found = stage("ppo", choice, models=Models(POLICY, CLASSIFIER, None))
    assert set(found.held) == {"policy", "reference", "reward model"}
    assert [one.name for one in found.passes] == ["sampling", "policy step"]


def test_the_peak_is_all_models_and_the_largest_pass() -> None:
    found = stage("ppo")
    assert [one.name for one in found.passes] == ["sampling", "policy step", "critic step"]
    assert found.kept == sum(bytes_of(found).values())
    assert found.total == found.kept + max(one.total for one in found.passes)
    assert found.passes[2].logits == 0 < found.passes[1].logits


def test_dpo_has_policy_and_reference_and_its_pairs_stay_together() -> None:
    assert bytes_of(stage("dpo")) == {"policy": 16000, "reference": 4000}
    small, smaller = (stage("dpo", f"engine.tokens_per_micro_batch={n}").passes[1].logits for n in (128, 1))
    assert small == smaller == 12 * 20 * 2 * POLICY.context


def test_sft_and_reward_have_one_that_learns() -> None:
    assert bytes_of(stage("sft")) == {"policy": 16000}
    assert bytes_of(stage("reward")) == {"reward model": 14400}
    assert stage("reward").passes[0].logits == 0


def test_all_models_that_answer_are_loaded_at_once() -> None:
    assert bytes_of(stage("sample", "sample.models=[base,sft]")) == {"base": 4000, "sft": 4000}


def test_in_the_evaluation_one_policy_stands_beside_the_judges_and_the_next_comes() -> None:
    found = stage("evaluate")
    assert bytes_of(found) == {"reference": 4000, "reward model": 3600, "policy": 4000}
    assert found.passes[0].total == 4000


def test_a_model_that_is_taken_stands_still_in_base_and_a_tiny_one_learns() -> None:
    assert bytes_of(stage("base", "engine.dtype=bfloat16", "model=local", "model.path=x")) == {"policy": 2000}
    assert bytes_of(stage("base", "model=local", "model.path=x")) == {"policy": 4000}
    assert bytes_of(stage("base", "engine.dtype=bfloat16")) == {"policy": 18000}


def test_with_adapters_all_four_models_are_one_trunk() -> None:
    """rank 2 of three layers of 8 + 8, and a head of 8: 104 parameters that learn."""
    found = bytes_of(stage("ppo", "lora.rank=2", "engine.dtype=bfloat16"))
    assert found == {"trunk of all": 2000, "policy": 18 * 104, "critic": 18 * 104, "reward model": 2 * 104}
    assert bytes_of(stage("dpo", "lora.rank=2")) == {"trunk of all": 4000, "policy": 16 * 104}


def test_adapters_for_no_layer_at_all_are_refused_where_there_are_to_be_any() -> None:
    with pytest.raises(UserError, match=r"lora\.targets \(nope, q\): no linear layer of the model has such a name"):
        models_of(composed("lora.rank=2", "lora.targets=[nope,q]"))
    assert models_of(composed("lora.rank=2", "lora.targets=[nope,q_proj]"))  # as the stages have it: one of them is there
    assert models_of(composed("lora.targets=[nope]"))


def test_zero_shares_out_the_trunk_of_adapters_too_and_it_comes_together_once_to_sample() -> None:
    four = ("lora.rank=2", "engine=zero3", "engine.processes=4")
    assert bytes_of(stage("dpo", *four)) == {"trunk of all": 1000, "policy": 4 * 104}
    assert stage("ppo", *four).passes[0].weights == 0.75 * 4000
    assert bytes_of(stage("dpo", "lora.rank=2", "engine=zero2", "engine.processes=4"))["trunk of all"] == 4000
    offloaded = stage("sft", "lora.rank=2", "engine=zero3_offload", "engine.processes=4")
    assert (bytes_of(offloaded)["trunk of all"], offloaded.waiting) == (0, 1000 + 4 * 104)


def test_zero_shares_out_what_learns_and_leaves_what_stands_still_whole() -> None:
    found = bytes_of(stage("ppo", "engine=zero3", "engine.processes=4"))
    assert found == {"policy": 4000, "critic": 3600, "reference": 4000, "reward model": 3600}
    assert stage("ppo", "engine=zero3").passes[1].weights == 4 * 2 * LAYER.parameters
    offloaded = stage("sft", "engine=zero3_offload", "engine.processes=4")
    assert (bytes_of(offloaded), offloaded.waiting) == ({"policy": 0}, 4000)


def test_where_weights_are_in_parts_they_come_together_to_sample_and_to_evaluate() -> None:
    """Beside a process's own quarter of the policy (4000 bytes) and of the critic (3600); none of it waits in the GPU where
    it is offloaded."""
    four = ("engine=zero3", "engine.processes=4")
    assert stage("ppo", *four).passes[0].weights == 0.75 * (4000 + 3600)
    assert stage("dpo", *four).passes[0].weights == stage("sft", *four).passes[1].weights == 0.75 * 4000
    assert stage("reward", *four).passes[1].weights == 0.75 * 3600
    assert stage("sft", "engine=zero3_offload", "engine.processes=4").passes[1].weights == 4000
    assert stage("ppo", "engine=zero2", "engine.processes=4").passes[0].weights == 0
    assert len(stage("sft", "engine=zero2").passes) == 1


@pytest.mark.parametrize(
    ("overrides", "rows"),
    [
        (["ppo.responses_per_step=64", "ppo.eval_prompts=8"], 64),
        (["ppo.responses_per_step=64", "ppo.eval_prompts=100"], 100),
        (["engine.responses_at_once=16"], 16),
    ],
)
def test_no_more_responses_are_written_side_by_side_than_are_asked_for(overrides: list[str], rows: int) -> None:
    assert stage("ppo", *overrides).passes[0].logits == 20 * 20 * rows


def test_a_critic_that_starts_from_the_policy_has_all_its_layers() -> None:
    found = models_of(composed("reward.layers=1", "ppo.critic_from=policy"))
    assert found.critic is not None
    assert (found.reward_model.layers, found.critic.layers) == (1, 3)
    same = models_of(composed("reward.layers=1"))
    assert same.critic == same.reward_model
    assert models_of(composed("ppo=rloo")).critic is None
    assert list(found.named()) == ["policy", "reference", "reward model", "critic"]
