"""Who comes when, through which channel: the requests of history and of the run, and the luck that they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.world.settings import CHANNELS, DAY, HOUR, NOW, SLATE_OFFERS, Floats, Integers, Truths
from pipelines.world.world import World, hour_of, weekend

BOT_VISITS_SHARE = 0.08
"""Part of all visits that bots make."""
CHANNEL_SHARES = (0.4, 0.15, 0.45)
NIGHT_WEIGHT = 0.15
"""How busy the hours from 0 to 6 are, against those of the day."""
LUCK = 4
"""Draws for each offer shown: whether it is seen, accepted, turned down or clicked, and how long that takes."""


@dataclass(frozen=True)
class Visits:
    """One entry a visit in every array, in the order of time; each asks for one decision.

    Attributes:
        who: customers. at: microseconds since 1970, the world's time. channel: positions in `CHANNELS`.
        anonymous: whether the visitor is not logged in yet.
        luck: uniform draws, shape (visits, SLATE_OFFERS, LUCK): every policy has the same.
    """

    who: Integers
    at: Integers
    channel: Integers
    anonymous: Truths
    luck: Floats

    def __len__(self) -> int:
        return len(self.who)

    def context(self, number: int) -> dict[str, Any]:
        """Return what a frontend says of the moment of one visit."""
        at = self.at[number : number + 1]
        return {
            "channel": CHANNELS[self.channel[number]],
            "hour": float(hour_of(at)[0]),
            "weekend": bool(weekend(at)[0]),
        }


def draw_visits(world: World, noun: int, count: int, begin: int, days: int) -> Visits:
    """Visits of a span of days: more by day than by night, and more by the active. Nobody comes before joining."""
    random, people = world.settings.generator(noun), world.customers
    busy = np.where(np.arange(24) < 7, NIGHT_WEIGHT, 1.0)
    hours = random.choice(24, count, p=busy / busy.sum()) + random.random(count)
    at = np.sort(begin + random.integers(days, size=count) * DAY + (hours * HOUR).astype(np.int64))
    who = _drawn(random, people.activity * ~people.bot, count)
    known = _drawn(random, people.activity * (~people.bot & ~people.new), count)
    bots = _drawn(random, people.bot.astype(np.float64), count)
    who = np.where(people.joined[who] > at, known, who)
    who = np.where(random.random(count) < BOT_VISITS_SHARE, bots, who)
    return Visits(
        who=who,
        at=at,
        channel=random.choice(len(CHANNELS), count, p=CHANNEL_SHARES),
        anonymous=(at >= NOW) & (at < people.login[who]),
        luck=random.random((count, SLATE_OFFERS, LUCK)),
    )


def _drawn(random: np.random.Generator, weights: Floats, count: int) -> Integers:
    return np.asarray(random.choice(len(weights), count, p=weights / weights.sum()))
