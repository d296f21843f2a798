"""The whole plan, from a folder with a config alone to what would help."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig

from rlhf import config
from rlhf.runtime import settings
from rlhf.runtime.plan import devices as machines
from rlhf.runtime.plan.changes import candidates, changed, enough_context, suggestions
from rlhf.runtime.plan.models import models_of
from rlhf.runtime.plan.page import fits
from rlhf.runtime.plan.plan import plan
from rlhf.runtime.plan.rules import Pass
from rlhf.runtime.plan.stages import Stage, stages_of
from tests.runtime.conftest import ROOT

GIB = machines.GIB


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 8 billion parameters, as a config."""
    place = tmp_path_factory.mktemp("llama-8b")
    LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131072,
    ).save_pretrained(place)
    return place


def composed(folder: Path, *overrides: str) -> config.Config:
    local = ("model=local", f"model.path={folder}", "model.max_tokens=1024")
    return settings.validate(settings.values_of(settings.compose(ROOT, [*local, *overrides])))


def test_the_head_names_what_is_read(folder: Path) -> None:
    here = composed(folder)
    assert plan(here, gpus(80))[0].startswith(f"model local ({folder}), context 1024")
    named = here.model.model_copy(update={"name": "qwen", "source": "hub", "id": "owner/name", "revision": "0" * 40})
    assert plan(here.model_copy(update={"model": named}), gpus(80))[0].startswith(f"model qwen ({folder}), context 1024")


def gpus(gib: float, count: int = 1, cpu_gib: float = 1000) -> machines.Devices:
    return machines.Devices("GPU", count, gib * GIB, cpu_gib * GIB, gpu=True)


def block(lines: list[str], name: str) -> list[str]:
    """The lines of one stage."""
    start = lines.index(name)
    return lines[start + 1 : lines.index("", start)]


def test_eight_billion_parameters_by_hand(folder: Path) -> None:
    lines = plan(composed(folder), gpus(80))
    assert "  policy           8,030,261,248 parameters" in lines
    assert "  critic           7,504,928,768 parameters" in lines  # without the head: 128256 x 4096
    ppo = block(lines, "ppo")
    numbers = [re.sub(" +", " ", line.strip()) for line in ppo]
    gib = 8030261248 / GIB
    assert numbers[0] == f"policy {4 * gib:.1f} {4 * gib:.1f} {8 * gib:.1f} {16 * gib:.1f}"
    assert numbers[2] == f"reference {4 * gib:.1f} {4 * gib:.1f}"
    assert numbers[-1].startswith("does not fit: needs ")
    assert numbers[-1].endswith(" of 80.0 GiB")
    assert block(lines, "base")[-1] == f"  fits: {4 * gib:.1f} of 80.0 GiB"


def test_lines_fit_a_hundred_columns(folder: Path) -> None:
    lines = plan(composed(folder, "engine=zero3_offload"), gpus(1, count=2, cpu_gib=1))
    assert max(len(line) for line in lines if str(folder) not in line) <= 100


def test_where_everything_fits_nothing_is_suggested(folder: Path) -> None:
    lines = plan(composed(folder), gpus(10_000))
    assert lines[-1] == "Everything fits."
    assert not any("does not fit" in line or "alone" in line for line in lines)


def test_changes_come_cheapest_first_and_end_where_everything_fits(folder: Path) -> None:
    lines = plan(composed(folder), gpus(80, count=8))
    changes = [line.strip() for line in lines if re.fullmatch(r"  [a-z_.]+=.*", line)]
    assert changes == [
        "engine.responses_at_once=32",
        "engine.tokens_per_micro_batch=1024",
        "engine.gradient_checkpointing=true",
        "engine.dtype=bfloat16",
        "optimizer.bits=8",
        "engine.name=zero2 engine.processes=8",
        "engine.name=zero3 engine.processes=8",  # PPO samples from whole weights
        "lora.rank=16 engine.name=zero2 engine.processes=8",
    ]
    assert lines[-1] == "With all of these everything fits."
    last = lines[-3].split()
    assert last[:3] == ["with", "those", "above"]
    assert all(cell.endswith("*") for cell in last[3:])


def test_what_the_changes_promise_is_what_the_plan_with_them_says(folder: Path) -> None:
    lines = plan(composed(folder), gpus(80, count=8))
    overrides = [f"{pair}" for line in lines if re.fullmatch(r"  [a-z_.]+=.*", line) for pair in line.split()]
    then = plan(composed(folder, *overrides), gpus(80, count=8))
    assert then[-1] == "Everything fits."
    verdicts = [re.search(r"fits: ([\d.,]+) of", line) for line in then]
    assert [f"{found[1]}*" for found in verdicts if found] == lines[-3].split()[3:]


def test_nothing_helps_a_model_far_too_large(folder: Path) -> None:
    assert plan(composed(folder), gpus(1))[-1].startswith("All of these are not enough")


WHOLE = "model.max_tokens=0"  # the 131,072 tokens that the model was made for


def test_of_a_context_far_too_long_it_is_said_first(folder: Path) -> None:
    """And with it everything comes to fit that else never would."""
    lines = plan(
        composed(folder, "data=hh_rlhf", "data.path=x", "labeler=dataset", "engine.dtype=bfloat16", WHOLE), gpus(79, 8)
    )
    assert "context 131072;" in lines[0]
    changes = [line.strip() for line in lines if re.fullmatch(r"  [a-z_.]+=.*", line)]
    assert changes[:3] == [
        "model.max_tokens=1024",
        "engine.responses_at_once=32",
        "engine.tokens_per_micro_batch=1024",
    ]
    assert lines[-1] == "With all of these everything fits."
    cut = composed(folder, "data=hh_rlhf", "data.path=x", "labeler=dataset", "engine.dtype=bfloat16")
    peaks = [f"{one.total / GIB:,.1f}" for one in stages_of(cut, models_of(cut))]
    alone = lines[lines.index("  model.max_tokens=1024") + 1].split()
    assert [cell.rstrip("*") for cell in alone[1:]] == peaks


@pytest.mark.parametrize(("response", "enough"), [(96, 1024), (256, 1024), (257, 2048), (512, 2048), (1000, 4096)])
def test_four_of_the_longest_responses_are_enough_of_a_context(folder: Path, response: int, enough: int) -> None:
    now = composed(folder, WHOLE, "data=hh_rlhf", "data.path=x", "labeler=dataset", f"data.max_response_tokens={response}")
    assert enough_context(now) == enough
    first, *others = candidates(now, gpus(79), 131072)
    assert first == {"model.max_tokens": enough}
    assert not [change for change in others if "model.max_tokens" in change]
    assert {"engine.tokens_per_micro_batch": enough} in others or enough == 4096


def test_a_context_that_is_not_far_too_long_is_cut_after_what_learns_as_much(folder: Path) -> None:
    now = composed(folder, "data.max_response_tokens=64", "model.max_tokens=4096")
    changes = list(candidates(now, gpus(79, 8), 4096))
    shorter = {"model.max_tokens": 1024, "engine.tokens_per_micro_batch": 1024}
    assert changes.index({"engine.name": "zero3", "engine.processes": 8}) < changes.index(shorter)
    assert changes.index(shorter) < next(i for i, change in enumerate(changes) if "lora.rank" in change)
    assert not [change for change in candidates(now, gpus(79, 8), 1024) if "model.max_tokens" in change]


@pytest.mark.parametrize(
    "now",
    [
        ("engine=zero3", "engine.processes=8"),
        ("engine=zero3", "engine.processes=8", "engine.dtype=bfloat16", "lora.rank=8"),
        ("engine=zero2", "engine.processes=4", "engine.gradient_checkpointing=true"),
        ("engine=zero3_offload", "engine.processes=8"),
        ("engine.responses_at_once=32", "engine.tokens_per_micro_batch=1024", "ppo=rloo", WHOLE),
    ],
)
@pytest.mark.parametrize("gib", [1, 40, 79])
def test_every_change_takes_less_than_those_above_it_and_only_adapters_put_together_what_is_shared_out(
    folder: Path, now: tuple[str, ...], gib: float
) -> None:
    asked = composed(folder, *now)
    models = models_of(asked)

    def planned(other: config.Config) -> list[Stage]:
        return stages_of(other, models.within(other.model.max_tokens))

    found = suggestions(asked, gpus(gib, 8), models.policy.context, lambda other: False, planned)
    assert found
    before, stage = planned(asked), asked.engine.zero_stage
    for one in found:
        assert any(then.total < was.total for was, then in zip(before, one.together, strict=True)), one.change
        then = int(str(one.change.get("engine.name", f"zero{stage}"))[4])
        assert then >= stage or "lora.rank" in one.change
        before, stage = one.together, then


def test_a_trunk_that_is_too_large_whole_is_shared_out_again(folder: Path) -> None:
    """Adapters on ZeRO's third stage, where the second does not do."""
    now = composed(folder, "engine=zero3", "engine.processes=8", "engine.dtype=bfloat16", "engine.responses_at_once=16")
    models = models_of(now)

    def third_stage(other: config.Config) -> bool:
        return other.lora.rank > 0 and other.engine.zero_stage == 3

    found = suggestions(now, gpus(8, 8), 1024, third_stage, lambda other: stages_of(other, models))
    assert [one.change for one in found][-2:] == [
        {"lora.rank": 16, "engine.name": "zero2", "engine.processes": 8},
        {"engine.name": "zero3", "engine.processes": 8},
    ]
    sft = [one.together[1].total for one in found]
    assert sft[-1] < sft[-2]


def test_what_takes_less_only_beside_a_dearer_change_comes_after_it() -> None:
    """One peak, of two halves: the larger counts; of the cheaper change nothing is to be seen before the dearer one."""
    asked = settings.validate(settings.values_of(settings.compose(ROOT)))

    def planned(other: config.Config) -> list[Stage]:
        halves = (3.0 if other.engine.gradient_checkpointing else 9.0, 4.0 if other.lora.rank else 10.0)
        return [Stage("sft", {}, tuple(Pass("half", activations=half) for half in halves))]

    found = suggestions(asked, gpus(5), 128, lambda other: planned(other)[0].total <= 5, planned)
    assert [one.change for one in found] == [{"lora.rank": 16}, {"engine.gradient_checkpointing": True}]
    assert [one.together[0].total for one in found] == [9, 4]
    assert [one.alone[0].total for one in found] == [9, 10]


def test_more_processes_than_there_are_devices_become_as_many(folder: Path) -> None:
    """Although no stage takes less for it; and they share out no less than before."""
    found = suggestions(
        composed(folder, "engine=zero3", "engine.processes=16"),
        gpus(80, 8),
        1024,
        lambda other: other.engine.processes == 8,
        lambda other: [Stage("sft", {}, (Pass("step", activations=1.0),))],
    )
    assert [one.change for one in found] == [{"engine.name": "zero3", "engine.processes": 8}]


@pytest.mark.parametrize(("name", "suggested"), [("zero1", True), ("zero2", False), ("zero3", False)])
def test_what_is_shared_out_already_is_not_put_together_even_where_that_takes_less(
    folder: Path, name: str, suggested: bool
) -> None:
    asked = composed(folder, f"engine={name}", "engine.processes=8", "lora.rank=8")

    def planned(other: config.Config) -> list[Stage]:
        return [Stage("sft", {}, (Pass("step", activations=1.0 if other.engine.name == "zero2" else 2.0),))]

    found = suggestions(asked, gpus(80, 8), 1024, lambda other: False, planned)
    assert bool(found) == suggested


def test_a_setting_that_is_there_already_is_not_suggested(folder: Path) -> None:
    done = ("engine.dtype=bfloat16", "engine.gradient_checkpointing=true", "lora.rank=8")
    lines = plan(composed(folder, *done), gpus(1))
    assert not [line for line in lines if re.fullmatch(r"  (engine.dtype|engine.gradient|lora).*", line)]


def test_a_change_that_contradicts_other_settings_is_none(folder: Path) -> None:
    settings_now = composed(folder)
    assert changed(settings_now, {"engine.processes": 2}) is None  # engine single
    assert [c for c in candidates(settings_now, gpus(1), 1024) if "zero2" in c.values()] == []
    assert [
        c for c in candidates(settings_now, machines.Devices("CPU", 1, 1, 1, gpu=False), 1024) if "optimizer.bits" in c
    ] == []


def test_a_process_without_a_gpu_does_not_fit(folder: Path) -> None:
    two = composed(folder, "engine=zero1", "engine.processes=4")
    stages = stages_of(two, models_of(two))
    assert not fits(stages, two, gpus(10_000, count=2))
    assert fits(stages, two, gpus(10_000, count=4))
    assert any("engine.processes (4) are more than the GPUs here (2)" in line for line in plan(two, gpus(10_000, count=2)))


def test_processes_on_the_cpu_share_its_memory() -> None:
    cpu = machines.Devices("CPU", 1, 12 * GIB, 12 * GIB, gpu=False)
    assert (cpu.share(1), cpu.share(4), gpus(12).share(4)) == (12 * GIB, 3 * GIB, 12 * GIB)


def test_what_waits_in_the_memory_of_the_cpu_has_to_fit_there(folder: Path) -> None:
    offloaded = composed(folder, "engine=zero3_offload", "engine.processes=1")
    stages = stages_of(offloaded, models_of(offloaded))
    assert fits(stages, offloaded, gpus(10_000))
    assert not fits(stages, offloaded, gpus(10_000, cpu_gib=100))
    last = block(plan(offloaded, gpus(10_000, cpu_gib=100)), "sft")[-1]
    assert last.endswith(f"and {16 * 8030261248 / GIB:.1f} of 100.0 GiB of the CPU's memory, which is too much")


def test_the_limit_of_a_group_of_processes_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "LIMIT", tmp_path / "max")
    monkeypatch.setattr(machines, "USED", tmp_path / "current")
    without = machines.cpu_free()
    assert without > 0
    (tmp_path / "current").write_text("1000\n")
    (tmp_path / "max").write_text("5000\n")
    assert machines.cpu_free() == 4000
    (tmp_path / "max").write_text("max\n")
    assert machines.cpu_free() > 4000


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlhf.runtime.plan", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    environment |= {"RLHF_DEVICE": "cpu", "TRANSFORMERS_OFFLINE": "0", "HF_HOME": str(home)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_the_command_plans_the_default_and_says_in_one_message_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "experiment=smoke")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("model tiny (trained here), context 128; float32, engine single, 1 process\n")
    for arguments, message in (
        (("ppo.kl_clt=1",), "plan: ppo.kl_clt: no such setting; did you mean ppo.kl_ctl?\n"),
        (("seed=1", "--gpu", "0", "seed=1"), "plan: --gpu (0) must be above 0 and --gpus (1) at least 1\n"),
        (("--gpu", "8", "--gpus", "0"), "plan: --gpu (8) must be above 0 and --gpus (0) at least 1\n"),
        (("--gpus", "4"), "plan: --gpus (4) says how many GPUs, and not how large: add --gpu GIB, what each has free\n"),
        (
            ("lora.rank=4", "lora.targets=[nope]"),
            "plan: lora.targets (nope): no linear layer of the model has such a name, so none gets an adapter; choose among "
            "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, or lora.targets=[] for all\n",
        ),
    ):
        done = run(tmp_path, *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", message)
    done = run(tmp_path, "model=gpt2")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(
        "plan: openai-community/gpt2 at 607a30d783dfa663caf39e06633721c8d4cfcd7e: is not in the cache"
    )
