"""Results for people: a table of all models, and their answers side by side, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlhf.evaluation.contest import Contestant
from rlhf.records import Messages
from rlhf.runtime import markdown

NAMES = {"sft": "SFT", "ppo": "PPO", "dpo": "DPO"}
MISSING = "–"
Z_95 = 1.96  # standard errors to either side


def shown_name(model: str) -> str:
    """`best_of_4` as `best of 4`, `sft` as `SFT`."""
    return NAMES.get(model, model.replace("_", " "))


def shown_point(method: str) -> str:
    """`best_of_n` as `best of n`; the snapshots are those of PPO."""
    return "PPO, on its way" if method == "snapshots" else shown_name(method)


def decoded(metrics: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(model, decoding, figures) of everything in metrics.json, in its order: sampled first, then greedy."""
    models = {name: figures for name, figures in metrics.items() if name != "yardsticks"}
    sampled = [(name, "sampled", figures) for name, figures in models.items()]
    return sampled + [(name, "greedy", figures["greedy"]) for name, figures in models.items() if "greedy" in figures]


def curve_row(step: int, contestant: Contestant) -> dict[str, Any]:
    """A row of curve.csv: every figure a column, intervals as `win_rate_low` and so on."""
    row: dict[str, Any] = {"step": step, "model": contestant.model, "decoding": contestant.decoding}
    for name, value in contestant.figures.items():
        row |= {f"{name}_{end}": number for end, number in value.items()} if isinstance(value, dict) else {name: value}
    return row


def table(metrics: dict[str, Any]) -> str:
    """One line a model and decoding, and what the figures mean."""
    yardsticks = metrics["yardsticks"]
    judged_by_gold = "perfect" in yardsticks
    gold = ["gold score", "way to perfect"] if judged_by_gold else []
    header = [
        "model",
        "decoding",
        *gold,
        "win rate against SFT",
        "at equal length",
        "reward score",
        "KL, nats",
        "tokens",
        "ended",
    ]
    rows = [_table_row(*entry, judged_by_gold) for entry in decoded(metrics)]
    lines = [*markdown.table(header, rows), "", *_notes(yardsticks), "", *_text_table(metrics, judged_by_gold)]
    return "\n".join([*lines, "", *_strength_lines(yardsticks["strengths"])]) + "\n"


def _table_row(model: str, decoding: str, figures: dict[str, Any], judged_by_gold: bool) -> list[str]:
    gold = [_with_interval(figures["gold_interval"]), f"{figures['share_closed']:.0%}"] if judged_by_gold else []
    reward = f"{figures['reward_score']:.2f}" if judged_by_gold else _with_interval(figures["reward_interval"])
    kl = f"{figures['kl_per_response']:.2f}" if "kl_per_response" in figures else MISSING
    if "kl_bound" in figures:
        kl = f"≤ {figures['kl_bound']:.2f}"
    return [
        shown_name(model),
        decoding,
        *gold,
        _with_interval(figures["win_rate"]),
        f"{figures['win_rate_at_equal_length']['mean']:.2f}",
        reward,
        kl,
        f"{figures['response_tokens']:.1f}",
        f"{figures['ended']:.3f}",
    ]


def _text_table(metrics: dict[str, Any], judged_by_gold: bool) -> list[str]:
    """What text alone says of the models, beside the judge: a lower loss or a larger overlap is no better model."""
    judge = "gold score" if judged_by_gold else "reward score"
    rows = [
        [shown_name(model), f"{figures[judge.replace(' ', '_')]:.2f}", *_text_cells(figures)]
        for model, decoding, figures in decoded(metrics)
        if decoding == "sampled"
    ]
    header = ["model, sampled", judge, "demonstrations, nats a token", "ROUGE-L", "distinct bigrams"]
    return [*markdown.table(header, rows), "", "Likelihood and overlap with a demonstration do not see what the judge sees."]


def _text_cells(figures: dict[str, Any]) -> list[str]:
    names = ("nll_demonstrations", "rouge_l", "distinct_2")
    return [f"{figures[name]:.3f}" if name in figures else MISSING for name in names]


def _strength_lines(strengths: dict[str, Any]) -> list[str]:
    """Head to head: one line of all the models, the strongest first."""
    if "open_ended" in strengths:
        return [f"Head to head: {strengths['open_ended']}."]
    found = sorted(strengths.items(), key=lambda entry: -entry[1]["strength"])
    shown = [f"{shown_name(m)} {s['strength']:+.2f} ± {Z_95 * s['standard_error']:.2f}" for m, s in found]
    return [f"Head to head on independent samples, Bradley-Terry strengths in log odds (± 95 %): {', '.join(shown)}."]


def _with_interval(interval: dict[str, float]) -> str:
    return f"{interval['mean']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


def _notes(yardsticks: dict[str, Any]) -> list[str]:
    notes = [
        f"{yardsticks['prompts']} held-out prompts, the same and with the same random numbers for every model, "
        f"sampled at temperature {yardsticks['temperature']:g}; judged by "
        f"the {yardsticks['judged_by']}. Brackets: 95 % bootstrap interval over prompts. A win is counted against "
        f"{yardsticks['win_rate_against']}, a tie as half: SFT itself comes out at about a half. The KL of a "
        "greedy answer is its log-probability ratio, no estimate of a divergence.",
    ]
    return notes if "perfect" not in yardsticks else [*notes, "", _what_is_possible(yardsticks)]


def _what_is_possible(yardsticks: dict[str, Any]) -> str:
    possible = [f"a perfect answer scores {yardsticks['perfect']['gold_score']:.2f}"]
    for name, figures in yardsticks.items():
        if name.startswith("best_of_"):
            n = name.split("_")[2]
            score, prompts = f"{figures['gold_score']:.2f}", figures["prompts"]
            possible.append(f"the best of {n} SFT samples by the gold rater {score} (first {prompts} prompts)")
    agreed = yardsticks["reward_model"]
    return (
        f"What is possible: {', '.join(possible)}. The way to perfect starts at SFT's score. Of two models' sampled answers "
        f"to one prompt the reward model prefers the one with the better gold score in {agreed['pairwise_accuracy']:.3f} of "
        f"{agreed['pairs']} pairs (always preferring the longer one: {agreed['longer_wins_accuracy']:.3f})."
    )


def spread(families: Sequence[str], count: int) -> list[int]:
    """Which prompts to show: the first of every family, then the second of every family, and so on."""
    seen: dict[str, int] = {}
    turns = []
    for i, family in enumerate(families):
        seen[family] = seen.get(family, 0) + 1
        turns.append((seen[family], i))
    return sorted(i for _, i in sorted(turns)[:count])


def side_by_side(prompts: Sequence[Messages], contestants: Sequence[Contestant], shown: Sequence[int]) -> str:
    """Every model's answers to some of the prompts, each with what the judge gave it."""
    parts = ["# The same prompts, every model\n"]
    for i in shown:
        rows = [
            [shown_name(c.model), c.decoding, markdown.cell(c.answers.texts[i]), f"{c.answers.judged[i]:.2f}"]
            for c in contestants
        ]
        score = "gold score" if contestants[0].answers.gold else "reward score"
        answers = markdown.table(["model", "decoding", "answer", score], rows)
        parts.append("\n".join([markdown.quoted(prompts[i]), "", *answers, ""]))
    return "\n".join(parts)
