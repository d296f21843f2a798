"""All models on one exam: who answers when, what each is held against, and the whole of metrics.json."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

from rlhf.config import Evaluate
from rlhf.evaluation.answering import answer, best_gold_scores, demonstrations_nll, draw_pool
from rlhf.evaluation.answers import GREEDY, SAMPLED, SFT, Answers, Contestant, Figures, best_of
from rlhf.evaluation.exam import Exam, Judges
from rlhf.evaluation.figures import Yardstick, best_gold_figures, figures_of, reward_model_figures
from rlhf.evaluation.measures import best_of_n_kl_bound
from rlhf.evaluation.tournament import tournament
from rlhf.models.policy import PreTrainedModel
from rlhf.seeds import derive_seed


def contest(
    policies: Mapping[str, Callable[[], PreTrainedModel]],
    exam: Exam,
    judges: Judges,
    yardsticks: Mapping[str, Yardstick],
    seed: int,
) -> Iterator[Contestant]:
    """Every policy sampled and greedy. A policy is loaded when its turn comes."""
    for model, load in policies.items():
        policy = load()
        nll = demonstrations_nll(policy, exam)
        if model == SFT:  # it has answered already: the others are held against it
            sampled, greedy = yardsticks[SAMPLED].sft, yardsticks[GREEDY].sft
            independent = yardsticks[SAMPLED].opponent
        else:
            sampled = answer(policy, exam, judges, exam.temperature, sample_seed(seed, 0))
            greedy = answer(policy, exam, judges, None, seed)
            independent = answer(policy, exam, judges, exam.temperature, derive_seed(seed, "rivals", model))
        yield Contestant(model, SAMPLED, sampled, figures_of(sampled, nll, yardsticks[SAMPLED]), independent)
        yield Contestant(model, GREEDY, greedy, figures_of(greedy, nll, yardsticks[GREEDY]))


def pool_of(exam: Exam, judges: Judges, yardstick: Yardstick, size: int, seed: int) -> list[Answers]:
    """So many answers of SFT to each prompt, for best-of-n to choose from; the first is the one that all know."""
    return [yardstick.sft, *draw_pool(exam, judges, [sample_seed(seed, i) for i in range(1, size)])]


def best_of_n(
    pool: Sequence[Answers], exam: Exam, judges: Judges, yardsticks: Mapping[str, Yardstick], n: int, seed: int
) -> Contestant:
    """The best of the first n answers of the pool by the reward model, as a policy to compare with."""
    best = best_of(pool[:n])
    independent = best_of(draw_pool(exam, judges, [derive_seed(seed, "rivals", i) for i in range(n)]))
    figures = figures_of(best, demonstrations_nll(judges.reference, exam), yardsticks[SAMPLED])
    bound = best_of_n_kl_bound(n)
    figures |= {"kl_per_response": bound, "kl_bound": bound}
    return Contestant(f"best_of_{n}", SAMPLED, best, figures, independent)


def contestants_in(policies: Mapping[str, Callable[[], PreTrainedModel]]) -> int:
    """How many contestants `contest` gives."""
    return 2 * len(policies)


def yardsticks_of(exam: Exam, judges: Judges, settings: Evaluate, seed: int) -> dict[str, Yardstick]:
    """What sampled and what greedy answers are held against.

    Sampled answers meet a second sample of SFT, drawn with random numbers of its own: the models share theirs, and two
    that share random numbers say the same wherever they agree, so that a win rate between them is none between strangers.
    """
    sampled = answer(judges.reference, exam, judges, exam.temperature, sample_seed(seed, 0))
    opponent = answer(judges.reference, exam, judges, exam.temperature, derive_seed(seed, "opponent"))
    greedy = answer(judges.reference, exam, judges, None, seed)
    return held_against(sampled, opponent, greedy, exam, judges, settings, seed)


def held_against(
    sampled: Answers, opponent: Answers, greedy: Answers, exam: Exam, judges: Judges, settings: Evaluate, seed: int
) -> dict[str, Yardstick]:
    """The yardsticks of these answers of SFT."""
    perfect = judges.rater.perfect(exam.prompts) if judges.rater else None
    draws = derive_seed(seed, "bootstrap")

    def yardstick(start: Answers, met: Answers) -> Yardstick:
        return Yardstick(start, met, perfect, exam.references, settings.bootstrap_samples, draws)

    return {SAMPLED: yardstick(sampled, opponent), GREEDY: yardstick(greedy, greedy)}


def metrics_of(contestants: Sequence[Contestant], about: Figures) -> Figures:
    """A key a model, its sampled figures directly under it, those of its greedy answers under `greedy`."""
    metrics: Figures = {}
    for contestant in contestants:
        if contestant.decoding == SAMPLED:
            metrics[contestant.model] = dict(contestant.figures)
        else:
            metrics[contestant.model][contestant.decoding] = contestant.figures
    return metrics | {"yardsticks": about}


def about_the_exam(
    contestants: Sequence[Contestant], exam: Exam, judges: Judges, yardstick: Yardstick, settings: Evaluate, seed: int
) -> Figures:
    """What no single model has to answer for: who judged what, what is possible, how good the reward model is."""
    about: Figures = {
        "prompts": len(exam.prompts),
        "truncated_prompts": exam.truncated_prompts,
        "temperature": exam.temperature,
        "judged_by": judges.rater.name if judges.rater else "reward model",
        "win_rate_against": "a second sample of SFT, drawn independently (greedy answers: SFT's greedy ones)",
        "selection": "of best_of_n, kl_per_response is the bound log n - (n - 1) / n; nll_demonstrations is SFT's",
    }
    entrants = {c.model: c.independent.judged[None] for c in contestants if c.independent}
    about["tournament"] = asdict(tournament(entrants, settings.bootstrap_samples, derive_seed(seed, "bootstrap")))
    if judges.rater is None:
        return about
    if yardstick.perfect is not None:
        about["perfect"] = {"gold_score": float(yardstick.perfect.mean())}
    about["reward_model"] = reward_model_figures([c.answers for c in contestants if c.decoding == SAMPLED])
    n = settings.gold_best_of
    if n:
        prompts, draws = settings.gold_best_of_prompts, derive_seed(seed, "gold_best_of")
        best = best_gold_scores(judges.reference, exam, judges.rater, prompts, n, draws)
        about[f"best_of_{n}_gold"] = best_gold_figures(best, yardstick)
    return about


def sample_seed(seed: int, i: int) -> int:
    """Of the i-th answer to each prompt; every model's own answers are the 0-th."""
    return derive_seed(seed, "sample", i)
