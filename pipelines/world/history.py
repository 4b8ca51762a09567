"""The history of a simulated world: what a random policy showed before the run, with known action probabilities, and
what came of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.world.outcomes import Outcomes, follow
from pipelines.world.settings import CATEGORIES, DAY, HISTORY, PURCHASES, SLATE_OFFERS, Floats, Integers
from pipelines.world.visits import Visits, draw_visits
from pipelines.world.world import World

ROWS_EACH = 4_096
"""Decisions that are worked on at once, which bounds memory."""
PURCHASES_A_WEEK = 1.0
"""Of a customer of activity 1."""


@dataclass(frozen=True)
class WorldHistory:
    """Decisions of the random policy.

    Attributes:
        slates: positions of offers, each rank drawn uniformly among what was valid, shape (visits, SLATE_OFFERS).
        eligible: how many offers each was drawn from.
    """

    visits: Visits
    slates: Integers
    eligible: Integers
    outcomes: Outcomes


def draw_history(world: World) -> WorldHistory:
    """Return the imported past. An acceptance that comes after the end of history is not imported, as in life."""
    settings = world.settings
    count = settings.customers * settings.history_decisions_each
    visits = draw_visits(world, HISTORY, count, settings.begin, settings.history_days)
    random = settings.generator(HISTORY, 1)
    slates, eligible = np.empty((count, SLATE_OFFERS), np.int64), np.empty(count, np.int64)
    for start in range(0, count, ROWS_EACH):
        rows = slice(start, min(start + ROWS_EACH, count))
        valid = world.offers.valid(visits.at[rows])
        lots = np.where(valid, random.random(valid.shape), 2.0)
        slates[rows] = np.argsort(lots, axis=1, kind="stable")[:, :SLATE_OFFERS]
        eligible[rows] = valid.sum(1)
    return WorldHistory(visits, slates, eligible, follow(world, visits, slates))


@dataclass(frozen=True)
class Purchases:
    """What customers buy whatever is shown, in the order of time: the stream that tells their tastes. One entry a
    purchase.
    """

    who: Integers
    at: Integers
    category: Integers
    amount: Floats

    def __len__(self) -> int:
        return len(self.who)

    def between(self, begin: int, end: int) -> Purchases:
        """Return those from a moment up to, and without, another."""
        rows = slice(*np.searchsorted(self.at, [begin, end]))
        return Purchases(self.who[rows], self.at[rows], self.category[rows], self.amount[rows])


def draw_purchases(world: World) -> Purchases:
    """Purchases of history and run; the more a customer likes a category, the more often it is bought. Bots buy
    nothing.
    """
    settings, people = world.settings, world.customers
    random = settings.generator(PURCHASES)
    weeks = (settings.end - people.joined) / (7 * DAY)
    counts = random.poisson(np.where(people.bot, 0.0, PURCHASES_A_WEEK * people.activity * weeks))
    who = np.repeat(np.arange(len(people)), counts)
    at = people.joined[who] + (random.random(len(who)) * (settings.end - people.joined[who])).astype(np.int64)
    order = np.argsort(at, kind="stable")
    who, at = who[order], at[order]
    liking = np.exp(world.taste(who, at))
    shares = np.cumsum(liking / liking.sum(1, keepdims=True), axis=1)
    category = np.minimum((random.random(len(who))[:, None] > shares).sum(1), len(CATEGORIES) - 1)
    return Purchases(who, at, category, np.round(random.lognormal(3.0, 0.7, len(who)), 2))
