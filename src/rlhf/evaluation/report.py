"""Results for people: a table of all models, and their answers side by side, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlhf.evaluation.answers import Contestant
from rlhf.evaluation.figures import has_gold_scores
from rlhf.evaluation.names import MISSING, shown_interval, shown_method, shown_name
from rlhf.evaluation.raters import SCORER, SENTIMENT
from rlhf.evaluation.statistics import Interval
from rlhf.evaluation.tournament import Ends, place_of
from rlhf.records import Messages
from rlhf.runtime import markdown


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
    gold = ["gold score"] if has_gold_scores(metrics) else []
    gold += ["way to perfect"] if "perfect" in yardsticks else []
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
    rows = [_table_row(*entry) for entry in decoded(metrics)]
    lines = [*markdown.table(header, rows), "", *_notes(yardsticks), "", *_text_table(metrics)]
    laws = _laws(yardsticks.get("overoptimisation", {}))
    return "\n".join([*lines, "", *_tournament(yardsticks["tournament"]), *laws]) + "\n"


def _table_row(model: str, decoding: str, figures: dict[str, Any]) -> list[str]:
    gold = [_with_interval(figures["gold_interval"])] if "gold_interval" in figures else []
    way = [f"{figures['share_closed']:.0%}"] if "share_closed" in figures else []
    reward = f"{figures['reward_score']:.2f}" if gold else _with_interval(figures["reward_interval"])
    kl = f"{figures['kl_per_response']:.2f}" if "kl_per_response" in figures else MISSING
    if "kl_bound" in figures:
        kl = f"≤ {figures['kl_bound']:.2f}"
    return [
        shown_name(model),
        decoding,
        *gold,
        *way,
        _with_interval(figures["win_rate"]),
        f"{figures['win_rate_at_equal_length']['mean']:.2f}",
        reward,
        kl,
        f"{figures['response_tokens']:.1f}",
        f"{figures['ended']:.3f}",
    ]


def _text_table(metrics: dict[str, Any]) -> list[str]:
    """What text alone says of the models, beside the judge: a lower loss or a larger overlap is no better model."""
    judge = "gold score" if has_gold_scores(metrics) else "reward score"
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


def _tournament(found: dict[str, Any]) -> list[str]:
    """Head to head: the ratings, the strongest first, and who wins how often against whom."""
    if found["open_ended"]:
        return [f"Head to head: {found['open_ended']}."]
    order = sorted(found["ratings"], key=lambda model: -place_of(Ends(**found["ratings"][model]["strength"])))
    rows = []
    for model in order:
        rating, rates = found["ratings"][model], found["win_rates"][model]
        cells = ["" if other == model else f"{rates[other]:.2f}" for other in order]
        rows.append([shown_name(model), _ends(rating["strength"], "+.2f"), _ends(rating["elo"], ".0f"), *cells])
    header = ["head to head", "strength, log odds", "Elo", *(f"against {shown_name(model)}" for model in order)]
    about = (
        "Every model against every other, on samples drawn independently (a tie is half a win): Bradley-Terry strengths by "
        "maximum likelihood, of sum 0; Elo is 400 points for odds of 10, around 1000; 95 % intervals over prompts."
    )
    return [*markdown.table(header, rows), "", about]


def _laws(laws: dict[str, Any]) -> list[str]:
    """Over-optimisation: of each path the best that was seen on it beside the peak of its law, and how well that fits."""
    if not laws:
        return []
    fitted = {path: law for path, law in laws.items() if "best" in law}
    header = [
        "over-optimisation",
        "checkpoints",
        "highest gain seen",
        "at KL",
        "fallen since by",
        "gain at the law's peak",
        "at KL",
        "alpha",
        "beta",
        "misfit",
        "by chance at most",
    ]
    lines = [*markdown.table(header, [_law_row(*entry) for entry in fitted.items()]), ""] if fitted else []
    about = (
        "Gain: gold score above SFT's. Laws (Gao et al. 2022), d the root of the KL: best of n d (alpha - beta d), PPO on "
        "its way d (alpha - beta log d). Misfit: standard deviation of the checkpoints' gains about the law, and what other "
        "prompts (and seeds, where there are several) would make of it, 19 times of 20, were the law right. The highest "
        "gain is the highest of several noisy means, and so rather too high; fallen since: from there to the largest KL, "
        "and so rather too much."
    )
    return ["", *lines, *(f"{shown_method(path)}: {law['statement']}." for path, law in laws.items()), "", about]


def _law_row(path: str, law: dict[str, Any]) -> list[str]:
    best, peak = law["best"], law.get("peak")
    return [
        shown_method(path),
        str(law["checkpoints"]),
        _with_interval(best["gain"]),
        f"{best['kl']:.2f}",
        _with_interval(law["fallen"]),
        _with_interval(peak["gain"]) if peak else MISSING,
        _with_interval(peak["kl"]) if peak else MISSING,
        _with_interval(law["alpha"]),
        _with_interval(law["beta"]),
        f"{law['residual']:.2f}",
        f"{law['chance']:.2f}",
    ]


def _ends(ends: dict[str, float | None], form: str) -> str:
    """`+1.25 [+1.15, +1.35]`; an open end as ∞, and no mean where there is none."""
    low, high = (sign + "∞" if ends[end] is None else f"{ends[end]:{form}}" for end, sign in (("low", "-"), ("high", "+")))
    mean = "" if ends["mean"] is None else f"{ends['mean']:{form}} "
    return f"{mean}[{low}, {high}]"


def _with_interval(entries: dict[str, float]) -> str:
    return shown_interval(Interval(**entries))


def _notes(yardsticks: dict[str, Any]) -> list[str]:
    notes = [
        f"{yardsticks['prompts']} held-out prompts, the same and with the same random numbers for every model, "
        f"sampled at temperature {yardsticks['temperature']:g}; judged by "
        f"the {yardsticks['judged_by']}{_meaning(yardsticks)}. Brackets: 95 % bootstrap interval over prompts. A win is "
        f"counted against {yardsticks['win_rate_against']}, a tie as half: SFT itself comes out at about a half. The KL of "
        "a greedy answer is its log-probability ratio, no estimate of a divergence.",
    ]
    return notes if "reward_model" not in yardsticks else [*notes, "", _what_is_possible(yardsticks)]


def _meaning(yardsticks: dict[str, Any]) -> str:
    """What a gold score is where it is not that of the world's rater."""
    if yardsticks["judged_by"] == SENTIMENT:
        return ": the gold score is the log-odds that an answer is positive"
    return ": the gold score is what that gives" if yardsticks["judged_by"].startswith(SCORER) else ""


def _what_is_possible(yardsticks: dict[str, Any]) -> str:
    perfect, possible = yardsticks.get("perfect"), []
    if perfect:
        possible.append(f"a perfect answer scores {perfect['gold_score']:.2f}")
    for name, figures in yardsticks.items():
        if name.startswith("best_of_"):
            n = name.split("_")[2]
            score, prompts = f"{figures['gold_score']:.2f}", figures["prompts"]
            possible.append(
                f"the best of {n} SFT samples by the {yardsticks['judged_by']} {score} (first {prompts} prompts)"
            )
    agreed = yardsticks["reward_model"]
    told = f"What is possible: {', '.join(possible)}. " if possible else ""
    told += "The way to perfect starts at SFT's score. " if perfect else ""
    return (
        f"{told}Of two models' sampled answers to one prompt the reward model prefers the one with the better gold score in "
        f"{agreed['pairwise_accuracy']:.3f} of "
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
