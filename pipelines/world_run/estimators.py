"""Estimators held against truth: what other policies would have earned, estimated from what a random one showed.

Rewards are those of the offers at each rank. Under the random policy each eligible offer stands at each rank with
probability 1 / eligible, so that

    IPS   = mean over decisions of the sum over ranks of  w x reward,   w = 1[the policy shows it at this rank] x
    eligible SNIPS = sum over ranks of  (sum of w x reward) / (sum of w)

IPS is unbiased; SNIPS has a small bias and, mostly, less variance.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from msgspec import Struct

from pipelines.world.history import WorldHistory
from pipelines.world.policies import best_slates, gains_of, worth
from pipelines.world.settings import SLATE_OFFERS, Floats, Integers
from pipelines.world.world import World


class Estimate(Struct, frozen=True):
    """What a policy earns in one decision, in euros.

    Attributes:
        truth: expected, over the decisions of the history.
        ips, ips_error: the estimate and its standard error, which the spread of the decisions tells.
        ips_off: how many standard errors it is off.
        snips: the estimate; None where the logged policy never showed what this one shows.
    """

    policy: str
    decisions: int
    truth: float
    ips: float
    ips_error: float
    ips_off: float
    snips: float | None


def estimates_of(world: World, history: WorldHistory) -> list[Estimate]:
    """Return the uniform policy, one that shows the offers of the most value, and the oracle, each from the logged
    history.
    """
    visits, count = history.visits, len(history.visits)
    slates = {name: np.empty((count, SLATE_OFFERS), np.int64) for name in ("most valuable", "oracle")}
    truth = {name: np.empty(count) for name in ("uniform", *slates)}
    value = world.offers.value
    for rows, valid, gains in gains_of(world, visits, visits.at):
        slates["oracle"][rows] = best_slates(gains, valid)
        slates["most valuable"][rows] = best_slates(np.broadcast_to(value, gains.shape), valid)
        for name in slates:
            truth[name][rows] = worth(gains, slates[name][rows])
        mean = np.where(valid, gains, 0.0).sum(1, keepdims=True) / valid.sum(1, keepdims=True)
        truth["uniform"][rows] = worth(np.broadcast_to(mean, gains.shape), slates["oracle"][rows])
    rewards = history.outcomes.accepted * value[history.slates]
    found = [estimate("uniform", np.ones(rewards.shape), rewards, truth["uniform"])]
    for name, wanted in slates.items():
        found.append(estimate(name, weights_of(wanted, history), rewards, truth[name]))
    return found


def weights_of(wanted: Integers, history: WorldHistory) -> Floats:
    """Return how much each logged offer counts for a policy that shows `wanted`, shape (decisions, ranks)."""
    return np.asarray((wanted == history.slates) * history.eligible[:, None].astype(np.float64))


def estimate(policy: str, weights: Floats, rewards: Floats, truth: Floats) -> Estimate:
    """Both estimates.

    Args:
        weights, rewards: of each logged offer, shape (decisions, ranks).
        truth: what the policy is expected to earn in each decision.
    """
    each, count = (weights * rewards).sum(1), len(rewards)
    ips, error, true = float(each.mean()), float(each.std(ddof=1)) / sqrt(count), float(truth.mean())
    of_rank = weights.sum(0)
    snips = float(((weights * rewards).sum(0) / of_rank).sum()) if bool((of_rank > 0).all()) else None
    return Estimate(policy, count, true, ips, error, (ips - true) / error if error > 0 else 0.0, snips)
