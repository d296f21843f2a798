"""What a GPU does of the pipeline's training steps, as a table for docs/benchmarks.md: python -m benchmarks.gpu [SHAPE …]

Models have the shapes of models people train and random weights, and compute in bfloat16 with deterministic kernels. SFT,
reward model, DPO and PPO make steps of the real loops. Tokens are real ones, padding is not counted; a FLOP is one that the
model needs, counted once though it be computed twice; utilisation is of --peak. Random weights practically never end a
response, so PPO's responses are all of full length. Beside the figures: on the first minibatch every ratio is 1 and the KL
is 0, and the same seed gives the same bits twice.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

if __name__ == "__main__":  # also by its path, where Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_work import Clock, Lengths, Shape

from benchmarks import gpu_work as work
from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.models.tokens import Example
from rlhf.runtime import device as devices
from rlhf.runtime.processes import attempt
from rlhf.training import ppo as loop
from rlhf.training.ppo_state import policy_of
from rlhf.training.ppo_update import learn
from rlhf.training.rollout import assign_credit, sample_responses

PEAK = 989.5  # dense bfloat16 TFLOP/s of an H100 or H200 SXM, by its datasheet
STEPS = 4  # the first of which warms up and is not counted
GIB = 2**30
SUPERVISED = Lengths(rows=32, prompt=(64, 256), response=(64, 512))
ROLLOUT = {"responses": 256, "minibatch": 64, "response": 256}
ON_CPU = (Lengths(rows=4, prompt=(4, 8), response=(4, 16)), {"responses": 8, "minibatch": 4, "response": 8})

Line = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(work.SHAPES)}; none: all but tiny")
    parser.add_argument("--cpu", action="store_true", help="a few short rows on the CPU, to see that it runs")
    parser.add_argument("--peak", type=float, default=PEAK, help=f"dense bfloat16 TFLOP/s of the card ({PEAK:g})")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a change to conf/, for all of it")
    parser.add_argument("--any-kernel", action="store_true", help="kernels that are not deterministic, too")
    parser.add_argument("--liger", action="store_true", help="with the kernels of the package liger-kernel")
    parser.add_argument("--only", default="sft,reward,dpo,ppo,properties", help="of these, by commas")
    parser.add_argument("--out", type=Path, help="a file that gets every line as JSON")
    found = parser.parse_args(arguments)
    if unknown := sorted(set(found.shapes) - set(work.SHAPES)):
        raise UserError(f"{', '.join(unknown)}: no such shape; there are {', '.join(work.SHAPES)}")
    if not (found.cpu or torch.cuda.is_available()):
        raise UserError("torch finds no GPU: nothing to measure (--cpu shows that the benchmark runs)")
    device = torch.device("cpu" if found.cpu else "cuda")
    settings = settings_for(device, found.set)
    devices.pin(settings.engine.threads)
    if found.any_kernel:
        torch.set_deterministic_debug_mode("default")
    work.LIGER = found.liger
    print(json.dumps({"machine": machine(device), "set": found.set, "any_kernel": found.any_kernel, "liger": found.liger}))
    lines = []
    for name in found.shapes or [name for name in work.SHAPES if name != "tiny"]:
        for what in found.only.split(","):
            line = {"shape": name, "work": what} | measure(what, work.SHAPES[name], device, settings, found.peak)
            print(json.dumps(line), flush=True)
            lines.append(line)
            forget(device)
    if found.out:
        found.out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(table(lines))
    return 0


def settings_for(device: torch.device, changes: Sequence[str]) -> Config:
    """bfloat16, and rollouts of the benchmark's size."""
    rollout = ROLLOUT if device.type == "cuda" else ON_CPU[1]
    sizes = [
        "engine.dtype=bfloat16",
        f"engine.tokens_per_micro_batch={16_384 if device.type == 'cuda' else 64}",
        f"ppo.responses_per_step={rollout['responses']}",
        f"ppo.responses_per_minibatch={rollout['minibatch']}",
        "ppo.critic_warmup_steps=0",
        "ppo.ppo_epochs=1",
        "ppo.lr=1e-6",
        "ppo.critic_lr=1e-6",
    ]
    return work.settings_of(*sizes, *changes)


def machine(device: torch.device) -> Line:
    found: Line = devices.tags(device)
    if device.type == "cuda":
        found |= {"memory_gib": round(torch.cuda.get_device_properties(device).total_memory / GIB, 1)}
        found |= {"matmul_tflops": round(matmul_rate(device))}
    return found


def matmul_rate(device: torch.device, size: int = 8192, times: int = 10) -> float:
    """TFLOP/s of a square bfloat16 product of random numbers."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        a @ b
    end.record()
    torch.cuda.synchronize(device)
    return 2 * size**3 * times / start.elapsed_time(end) / 1e9


def measure(what: str, shape: Shape, device: torch.device, settings: Config, peak: float) -> Line:
    lengths, rollout = (SUPERVISED, ROLLOUT) if device.type == "cuda" else ON_CPU
    match what:
        case "ppo":
            return time_ppo(shape, device, settings, rollout, peak)
        case "properties":
            return properties(shape, device, settings, rollout)
        case "sft" | "reward" | "dpo":
            return time_supervised(what, shape, device, settings, lengths, peak)
    raise UserError(f"{what}: no such work; there are sft, reward, dpo, ppo, properties")


def time_supervised(what: str, shape: Shape, device: torch.device, settings: Config, lengths: Lengths, peak: float) -> Line:
    """Steps of one of the three loops."""
    clock, precision = Clock(device), settings.engine.dtype
    model = (work.make_classifier if what == "reward" else work.make_policy)(shape, device, precision)
    examples = lengths.rows_of(STEPS, shape.sizes["vocab_size"])
    start = {"sft": work.sft, "reward": work.reward, "dpo": work.dpo}[what]
    rows, learns = start(model, examples, lengths.rows, settings)
    clock.wait()
    next(rows)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in learns[1:]:
        clock.time("step", lambda: next(rows))
    counted = [e for step in learns[1:] for e in step]
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "step_s": clock.seconds["step"] / len(learns[1:]),
        **rates(counted, 3 * work.flops(model, counted), clock.seconds["step"], peak),
        **memory(device),
    }


def rates(examples: Sequence[Example], flops: int, seconds: float, peak: float) -> Line:
    tokens = sum(len(e) for e in examples)
    return {"tokens_per_s": tokens / seconds, "tflops": flops / seconds / 1e12, "mfu": flops / seconds / 1e12 / peak}


def memory(device: torch.device) -> Line:
    return {"peak_gib": torch.cuda.max_memory_allocated(device) / GIB} if device.type == "cuda" else {}


def time_ppo(shape: Shape, device: torch.device, settings: Config, sizes: dict[str, int], peak: float) -> Line:
    """A rollout by phase, after one that warms up."""
    clock = Clock(device)
    ppo, vocabulary = settings.ppo, shape.sizes["vocab_size"]
    policy = work.make_policy(shape, device, settings.engine.dtype)
    reward_model = work.make_classifier(shape, device, settings.engine.dtype, seed=1)
    prompts = [e.prompt_ids for e in work.random_examples(sizes["responses"], SUPERVISED.prompt, (2, 2), vocabulary)]
    state, environment = work.ppo_world(policy, reward_model, prompts, settings, sizes["response"])
    for warm in (True, False):
        clock.seconds.clear()
        asked = (policy, prompts, environment.decoding, ppo.temperature, int(warm))
        examples, ended = clock.time("sample", lambda asked=asked: sample_responses(*asked))
        places = list(range(len(prompts)))
        feedback = (state, environment, ppo, places, examples, ended)
        rollout = clock.time("score", lambda feedback=feedback: loop.with_feedback(*feedback))
        experience = assign_credit(rollout, ppo, ppo.kl_ctl)
        clock.time("learn", lambda experience=experience: learn(state, experience, environment, ppo))
    total, learned = sum(clock.seconds.values()), clock.seconds["learn"]
    forward = work.flops(policy, examples) + work.flops(reward_model, examples)
    written = sum(len(e.response_ids) for e in examples)
    return {
        "parameters": sum(p.numel() for p in policy.parameters()),
        "step_s": total,
        **{f"{phase}_s": seconds for phase, seconds in clock.seconds.items()},
        "sampled_tokens_per_s": written / clock.seconds["sample"],
        "learn_mfu": 3 * forward / learned / 1e12 / peak,
        # policy, reference; reward model, critic: forward once each; then policy and critic forwards and backwards
        **rates(examples, 2 * forward + 3 * forward, total, peak),
        **memory(device),
    }


def properties(shape: Shape, device: torch.device, settings: Config, sizes: dict[str, int]) -> Line:
    """The KL before any step, the ratio on the first minibatch, and whether weights and figures come out the same twice."""
    first, second = (_few_steps(shape, device, settings, sizes) for _ in range(2))
    same = all(torch.equal(ours, theirs) for ours, theirs in zip(first[1], second[1], strict=True))
    return first[0] | {"same_figures_twice": first[0] == second[0], "same_weights_twice": same}


def _few_steps(
    shape: Shape, device: torch.device, settings: Config, sizes: dict[str, int]
) -> tuple[Line, list[torch.Tensor]]:
    """One rollout with one minibatch, at once a first one, and then three more steps on it."""
    ppo = settings.ppo.model_copy(update={"responses_per_minibatch": settings.ppo.responses_per_step})
    policy = work.make_policy(shape, device, settings.engine.dtype)
    reward_model = work.make_classifier(shape, device, settings.engine.dtype, seed=1)
    prompts = [e.prompt_ids for e in work.random_examples(16, SUPERVISED.prompt, (2, 2), shape.sizes["vocab_size"])]
    state, environment = work.ppo_world(policy, reward_model, prompts, settings, min(sizes["response"], 64))
    examples, ended = sample_responses(policy, prompts, environment.decoding, 1.0, 0)
    rollout = loop.with_feedback(state, environment, ppo, list(range(16)), examples, ended)
    figures: Line = {"kl_before": float((rollout.old_logprobs - rollout.ref_logprobs).abs().max())}
    experience = assign_credit(rollout, ppo, ppo.kl_ctl)
    rows = [learn(state, experience, environment, ppo) for _ in range(4)]
    figures |= {"first_ratio_peak": rows[0]["ratio_peak"], "first_approximate_kl": rows[0]["approximate_kl"]}
    figures |= {"last_approximate_kl": rows[-1]["approximate_kl"], "last_ratio_peak": rows[-1]["ratio_peak"]}
    weights = [w.detach().to("cpu", copy=True) for w in policy_of(state).parameters()]
    del state, environment
    forget(device)
    return figures, weights


def forget(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


COLUMNS = {
    "parameters": lambda x: f"{x / 1e9:.2f} B",
    "step_s": lambda x: f"{x:.3g}",
    "tokens_per_s": lambda x: f"{x:,.0f}",
    "mfu": lambda x: f"{x:.0%}",
    "peak_gib": lambda x: f"{x:.1f}",
    "sample_s": lambda x: f"{x:.3g}",
    "score_s": lambda x: f"{x:.3g}",
    "learn_s": lambda x: f"{x:.3g}",
    "learn_mfu": lambda x: f"{x:.0%}",
}


def table(lines: Sequence[Line]) -> str:
    """Markdown, a row a measurement."""
    head = ["shape", "work", *COLUMNS]
    timed = [line for line in lines if "step_s" in line]
    rows = [
        [line["shape"], line["work"], *(show(line[name]) if name in line else "" for name, show in COLUMNS.items())]
        for line in timed
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    sys.exit(attempt("gpu", lambda: main(sys.argv[1:])))
