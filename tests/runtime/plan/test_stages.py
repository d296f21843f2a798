"""Which models a stage holds, and with what: by counting bytes of a parameter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlhf import config
from rlhf.models.sizes import Layer, Linear, Sizes
from rlhf.runtime import settings
from rlhf.runtime.plan.stages import Models, Stage, models_of, stages_of
from tests.runtime.conftest import ROOT

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
