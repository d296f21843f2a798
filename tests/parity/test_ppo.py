"""One update of TRL's PPOTrainer against ours, on the responses that it sampled."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.config import PPO
from rlhf.maths.advantages import gae, token_rewards
from rlhf.maths.diagnostics import clip_fraction
from rlhf.maths.kl import k1, k2, k3
from rlhf.maths.losses import value_loss
from rlhf.models.batching import Batching
from rlhf.models.forward import response_logprobs, response_values
from rlhf.models.tokens import Example, collate
from rlhf.training.ppo import with_feedback
from rlhf.training.ppo_metrics import rollout_metrics
from rlhf.training.ppo_setup import make_state
from rlhf.training.ppo_state import Environment, PPOState, model_of, policy_of
from rlhf.training.ppo_update import learn
from rlhf.training.rollout import Experience, Rollout, assign_credit
from tests.helpers import assert_near
from tests.models.tiny_models import EOS, PAD
from tests.parity.descent import ADAMW, EPSILON, SAME
from tests.parity.their_ppo import RATE, RESPONSES, Update
from tests.training.table import all_settings, environment_for, ppo_settings, weights

CLIP = 0.2  # of the ratio, the default of both


@dataclass(frozen=True, repr=False)
class Ours:
    """Our loop on their responses, before anything is learnt."""

    ppo: PPO
    state: PPOState
    environment: Environment
    rollout: Rollout


def ours_on(theirs: Update) -> Ours:
    ppo = ppo_settings(
        responses_per_step=RESPONSES,
        responses_per_minibatch=RESPONSES,
        ppo_epochs=1,
        clip_range=CLIP,
        kl_ctl=theirs.settings["kl_coef"],
        lam=theirs.settings["lam"],
        temperature=theirs.settings["temperature"],
        lr=RATE * EPSILON,
        critic_lr=theirs.settings["vf_coef"] * RATE * EPSILON,  # what weighs the critic's loss in theirs
    )
    models = copy.deepcopy(theirs.before)
    state = make_state(all_settings(ppo, **ADAMW), models.policy, models.reward_model)
    critic_of(state).load_state_dict(models.critic.state_dict())
    environment = environment_for(
        models.policy, models.reward_model, Batching(PAD, 10_000), temperature=ppo.temperature, reference=models.reference
    )
    examples = theirs.examples
    ended = torch.tensor([e.response_ids[-1] == EOS for e in examples])
    rollout = with_feedback(state, environment, ppo, list(range(len(examples))), examples, ended)
    # Whether a response that did not end is paid its score is a difference of its own, below.
    return Ours(ppo, state, environment, replace(rollout, scores=rollout.raw_scores))


def critic_of(state: PPOState) -> PreTrainedModel:
    assert state.critic is not None
    return model_of(state.critic)


def credit(ours: Ours, whiten: bool = True) -> Experience:
    return assign_credit(ours.rollout, ours.ppo.model_copy(update={"whiten_advantages": whiten}), ours.ppo.kl_ctl)


def whitened_by_n_less_one(experience: Experience, mask: Tensor) -> Experience:
    n = int(mask.sum())
    return replace(experience, advantages=experience.advantages * ((n - 1) / n) ** 0.5)


def with_their_place(theirs: Update) -> tuple[list[Example], Tensor]:
    """The responses with a place after their end, where they are shorter than the longest; and the mask of those.

    What stands at that place is read by nobody: a value is read one place before.
    """
    width = theirs.mask.shape[1]
    longer = [Example(e.prompt_ids, [*e.response_ids, PAD][:width]) for e in theirs.examples]
    return longer, ~theirs.seen["padding_mask_p1"]


def moved(after: nn.Module, before: nn.Module) -> Tensor:
    return weights(after) - weights(before)


@pytest.mark.parametrize("case", ["filled", "ended"])
def test_what_the_models_say_of_a_rollout(case: str, request: pytest.FixtureRequest) -> None:
    theirs: Update = request.getfixturevalue(case)
    rollout, mask = ours_on(theirs).rollout, theirs.mask
    assert torch.equal(rollout.response_mask, mask)
    assert bool(mask.all()) == (case == "filled")
    for ours, name in (
        (rollout.old_logprobs, "logprobs"),
        (rollout.ref_logprobs, "ref_logprobs"),
        (rollout.values, "values"),
    ):
        assert_near(ours[mask], theirs.seen[name][mask], SAME)
    assert_near(rollout.scores, theirs.seen["scores"], SAME)
    assert (theirs.seen["logprobs"][~mask] == 1.0).all()  # what marks padding in theirs, and no log-probability
    assert (rollout.old_logprobs[~mask] == 0.0).all()


def test_the_estimators_of_kl(ended: Update, undiscounted: Update) -> None:
    for theirs, estimator in ((ended, k1), (undiscounted, k3)):
        rollout, mask = ours_on(theirs).rollout, theirs.mask
        kl = estimator(rollout.old_logprobs, rollout.ref_logprobs)
        assert_near(kl[mask], theirs.seen["kl"][mask], SAME)
    ours = ours_on(ended)
    figures = rollout_metrics(credit(ours), ours.ppo.kl_ctl, ours.ppo)
    assert_near(figures["kl_per_response"], ended.metrics["objective/kl"], SAME)


def test_where_no_response_ends_early_rewards_returns_and_advantages_are_theirs(filled: Update) -> None:
    ours = ours_on(filled)
    experience = credit(ours)
    assert_near(experience.rewards, filled.seen["rewards"], SAME)
    assert_near(experience.returns, filled.seen["returns"], SAME)
    assert_near(credit(ours, whiten=False).advantages, filled.seen["returns"] - filled.seen["values"], SAME)
    assert_near(whitened_by_n_less_one(experience, filled.mask).advantages, filled.seen["advantages"], SAME)


def test_the_score_of_a_response_that_ends_early_stands_one_place_after_its_end_in_theirs(ended: Update) -> None:
    rollout, (_, longer) = ours_on(ended).rollout, with_their_place(ended)
    kl_ctl = ended.settings["kl_coef"]
    four = (rollout.scores, rollout.old_logprobs, rollout.ref_logprobs)
    assert_near(token_rewards(*four, longer, kl_ctl), ended.seen["rewards"], SAME)
    ours = token_rewards(*four, ended.mask, kl_ctl)
    assert_near(ours.sum(1), ended.seen["rewards"].sum(1), SAME)
    early = longer.sum(1) > ended.mask.sum(1)
    assert 0 < int(early.sum()) < len(early)
    assert_near(ours[~early], ended.seen["rewards"][~early], SAME)
    assert (ended.seen["rewards"][~ended.mask & longer] == ended.seen["scores"][early]).all()


def test_that_place_costs_advantages_a_share_of_the_critics_error_in_theirs(ended: Update) -> None:
    """A_t of theirs is ours + lambda^(L - t) (1 - lambda) (V(after the end) - score): a value that is no state's."""
    ours, lam = ours_on(ended), ended.settings["lam"]
    examples, longer = with_their_place(ended)
    values = response_values(critic_of(ours.state), collate(examples, PAD)).detach()
    assert_near(values, ended.seen["values"], SAME)
    raw, returns = gae(ended.seen["rewards"], values, longer, 1.0, lam)
    assert_near(returns, ended.seen["returns"], SAME)
    experience = credit(ours, whiten=False)
    lengths = ended.mask.sum(1)
    for row, length in enumerate(lengths.tolist()):
        early = length < ended.mask.shape[1]
        error = values[row, length] - ours.rollout.scores[row] if early else torch.tensor(0.0)
        apart = (1 - lam) * lam ** torch.arange(length - 1, -1, -1) * error
        assert_near(experience.advantages[row, :length] + apart, raw[row, :length], SAME)
        assert not early or float(apart.abs().max()) > 100 * SAME


def test_with_lambda_1_that_place_costs_nothing(undiscounted: Update) -> None:
    ours, mask = ours_on(undiscounted), undiscounted.mask
    penalty = undiscounted.settings["missing_eos_penalty"]
    paid = torch.where(ours.rollout.ended, ours.rollout.raw_scores, ours.rollout.raw_scores - penalty)
    ours = replace(ours, rollout=replace(ours.rollout, scores=paid))
    experience = credit(ours)
    assert_near(experience.returns[mask], undiscounted.seen["returns"][mask], SAME)
    advantages = whitened_by_n_less_one(experience, mask).advantages
    assert_near(advantages, undiscounted.seen["advantages"], SAME)


def test_a_response_that_did_not_end_is_paid_less_in_theirs_and_a_constant_in_ours(undiscounted: Update) -> None:
    """With a constant no reward model's taste for length can make it worth while not to end."""
    ours = ours_on(undiscounted)
    ended, raw = ours.rollout.ended, ours.rollout.raw_scores
    assert 0 < int(ended.sum()) < len(ended)
    penalty = undiscounted.settings["missing_eos_penalty"]
    assert_near(torch.where(ended, raw, raw - penalty), undiscounted.seen["scores"], SAME)
    paid = with_feedback(ours.state, ours.environment, ours.ppo, list(range(len(raw))), ours.rollout.examples, ended).scores
    assert_near(paid[~ended], torch.full_like(paid[~ended], ours.ppo.missing_end_score), 0.0)


def test_losses_and_weights_of_two_epochs(filled: Update) -> None:
    ours, mask = ours_on(filled), filled.mask
    experience = whitened_by_n_less_one(credit(ours), mask)
    batch = collate(ours.rollout.examples, PAD)
    for epoch in range(filled.settings["num_ppo_epochs"]):
        now = response_logprobs(policy_of(ours.state), batch, ours.ppo.temperature).detach()
        figures = learn(ours.state, experience, ours.environment, ours.ppo)
        assert_near(figures["policy_loss"], filled.seen["pg_loss_stats"][epoch].item(), SAME)
        assert_near(figures["critic_loss"], filled.seen["vf_loss_stats"][epoch].item(), SAME)
        # theirs is half the mean square, k2; ours is k3, whose mean is that of the divergence itself
        assert_near(k2(now, ours.rollout.old_logprobs).mean(), filled.seen["approxkl_stats"][epoch].item(), SAME)
        log_ratio = now - ours.rollout.old_logprobs
        assert_near(figures["approximate_kl"], (log_ratio.exp() - 1 - log_ratio).mean(), SAME)
    assert figures["clip_fraction"] > 0
    assert_near(ours.rollout.entropy.mean(), filled.seen["entropy_stats"][0].item(), SAME)
    before = filled.before
    for mine, their, start in (
        (policy_of(ours.state), filled.policy, before.policy),
        (critic_of(ours.state), filled.critic, before.critic),
    ):
        assert float(moved(their, start).abs().max()) > 1e-3
        assert_near(weights(mine), weights(their), SAME)


def test_the_policy_learns_the_same_where_responses_end_early(ended: Update) -> None:
    """Given their advantages: the mask, the mean over tokens and the step are then all that is left to differ."""
    ours = ours_on(ended)
    experience = replace(credit(ours), advantages=ended.seen["advantages"])
    for epoch in range(ended.settings["num_ppo_epochs"]):
        figures = learn(ours.state, experience, ours.environment, ours.ppo)
        assert_near(figures["policy_loss"], ended.seen["pg_loss_stats"][epoch].item(), SAME)
    assert_near(weights(policy_of(ours.state)), weights(ended.policy), SAME)


def test_the_critic_learns_one_place_more_in_theirs(ended: Update) -> None:
    """On what is after the end of a response it is taught the score, and its mean is over that many places more."""
    ours = ours_on(ended)
    examples, longer = with_their_place(ended)
    values = response_values(critic_of(ours.state), collate(examples, PAD))
    loss = value_loss(values, ended.seen["values"], ended.seen["returns"], longer, ours.ppo.value_clip)
    assert_near(loss, ended.seen["vf_loss_stats"][0].item(), SAME)
    experience = credit(ours)
    mine = value_loss(values, ours.rollout.values, experience.returns, ended.mask, ours.ppo.value_clip)
    assert_near(learn(ours.state, experience, ours.environment, ours.ppo)["critic_loss"], mine, SAME)
    assert abs(float((mine - loss).detach())) > 100 * SAME


def test_a_ratio_out_of_bounds_that_pays_nothing_to_clip_does_not_count_in_theirs(filled: Update) -> None:
    """Their fraction is of tokens whose gradient is cut off, ours of tokens whose ratio has left its bounds."""
    ours = ours_on(filled)
    experience = credit(ours)
    learn(ours.state, whitened_by_n_less_one(experience, filled.mask), ours.environment, ours.ppo)
    now = response_logprobs(policy_of(ours.state), collate(ours.rollout.examples, PAD), ours.ppo.temperature).detach()
    ratio = k1(now, ours.rollout.old_logprobs).exp()
    above, below = ratio > 1 + CLIP, ratio < 1 - CLIP
    cut_off = torch.where(experience.advantages > 0, above, below)
    assert_near(cut_off.double().mean(), filled.seen["pg_clipfrac_stats"][1].item(), SAME)
    assert_near(clip_fraction(now, ours.rollout.old_logprobs, filled.mask, CLIP), (above | below).double().mean(), SAME)
    assert int(cut_off.sum()) < int((above | below).sum())


def test_their_mean_of_squares_counts_padding(ended: Update) -> None:
    """Both log-probabilities of padding are 1, so it adds nothing above the line and its places below."""
    ours = ours_on(ended)
    experience = replace(credit(ours), advantages=ended.seen["advantages"])
    learn(ours.state, experience, ours.environment, ours.ppo)
    now = response_logprobs(policy_of(ours.state), collate(ours.rollout.examples, PAD), ours.ppo.temperature).detach()
    squares = k1(now, ours.rollout.old_logprobs)[ended.mask].square().sum() / 2
    assert_near(squares / ended.mask.numel(), ended.seen["approxkl_stats"][1].item(), SAME)
