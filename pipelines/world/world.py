"""A world of which the truth is known: how likely every customer is to accept every offer, at every moment, at every
rank.

    P(accept) = examined(rank) x relevance(customer, offer, channel, moment)
    examined(rank) = rank ^ -0.4                         1, 0.76, 0.64, 0.57: the offer is seen, which is its impression
    relevance = 1 / (1 + exp(-log odds)), 0 for bots
    log odds = BASE + taste(customer, category, moment) + quality(offer) - thrift(customer) x dearness(offer)
             + channel(channel, category) + hour(category, hour of day) + weekend(category) - mood(customer, moment)

Tastes drift by segment and category, linearly in time. A mood is a complaint that fades away. The position counts as a
factor, not in the log odds, so that the best slate is simply the offers in the order of relevance x value: the oracle
is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipelines.world.customers import NEVER, Customers, draw_customers
from pipelines.world.offers import Offers, draw_offers
from pipelines.world.settings import (
    CATEGORIES,
    CHANNELS,
    DAY,
    HOUR,
    NOW,
    SEASONS,
    SEGMENTS,
    SLATE_OFFERS,
    Floats,
    Integers,
    Truths,
    WorldSettings,
)

BASE = -3.4
HOURS_WEIGHT = 0.5
"""How much log odds swing over a day."""
COMPLAINT_WEIGHT, COMPLAINT_DAYS = 1.5, 10.0
"""What a complaint takes from log odds at first, and after how many days a factor e of it is left."""
DRIFT_WEIGHT = 0.35
"""Standard deviation of what 30 days add to the tastes of a segment."""
DRIFT_DAYS = 30.0
EXAMINED = np.arange(1, SLATE_OFFERS + 1) ** -0.4
"""With which probability the offer at each rank is seen, shape (SLATE_OFFERS,)."""


@dataclass(frozen=True)
class Seasons:
    """What changes the odds of whole categories.

    Attributes:
        peak_hour: of each category.
        weekend: added to log odds on Saturdays and Sundays, of each category.
        channel: added in a channel, shape (channels, categories).
        drift: added by 30 days, shape (segments, categories).
    """

    peak_hour: Floats
    weekend: Floats
    channel: Floats
    drift: Floats


@dataclass(frozen=True)
class World:
    """Customers, offers and seasons, all drawn from the settings."""

    settings: WorldSettings

    @cached_property
    def customers(self) -> Customers:
        return draw_customers(self.settings)

    @cached_property
    def offers(self) -> Offers:
        return draw_offers(self.settings)

    @cached_property
    def offers_at(self) -> dict[str, int]:
        """Offers' positions by id."""
        return {offer_id: at for at, offer_id in enumerate(self.offers.ids)}

    @cached_property
    def seasons(self) -> Seasons:
        random, kinds = self.settings.generator(SEASONS), len(CATEGORIES)
        return Seasons(
            peak_hour=random.uniform(0.0, 24.0, kinds),
            weekend=random.normal(0.0, 0.4, kinds),
            channel=random.normal(0.0, 0.35, (len(CHANNELS), kinds)),
            drift=random.normal(0.0, DRIFT_WEIGHT, (len(SEGMENTS), kinds)),
        )

    def taste(self, who: Integers, at: Integers) -> Floats:
        """Log odds of some customers at some moments, for each category, shape (customers, categories)."""
        months = (at - NOW) / (DRIFT_DAYS * DAY)
        return np.asarray(self.customers.taste[who] + months[:, None] * self.seasons.drift[self.customers.segment[who]])

    def relevance(self, who: Integers, at: Integers, channel: Integers, what: NDArray[np.integer]) -> Floats:
        """Return the probability of acceptance once the offer is seen.

        Args:
            who, at, channel: customer, moment (microseconds since 1970, the world's time) and position in `CHANNELS`,
                each (n,).
            what: offers for each of them, shape (n, offers).

        Returns:
            Probabilities of shape (n, offers).
        """
        people, offers, seasons = self.customers, self.offers, self.seasons
        angle = 2 * np.pi * (hour_of(at)[:, None] - seasons.peak_hour) / 24
        odds = self.taste(who, at) + HOURS_WEIGHT * np.cos(angle) + seasons.channel[channel]
        odds += weekend(at)[:, None] * seasons.weekend
        own = BASE - self.mood(who, at)
        logit = np.take_along_axis(odds, offers.category[what], 1) + own[:, None] + offers.quality[what]
        logit -= people.thrift[who][:, None] * offers.dearness[what]
        return np.asarray(np.where(people.bot[who][:, None], 0.0, 1.0 / (1.0 + np.exp(-logit))))

    def probability(self, who: Integers, at: Integers, channel: Integers, slates: NDArray[np.integer]) -> Floats:
        """Return the probability of acceptance of each offer of slates, in their order: shape (n, ranks); a slate's -1
        is no offer: 0.
        """
        seen = EXAMINED[: slates.shape[1]] * self.relevance(who, at, channel, np.maximum(slates, 0))
        return np.asarray(np.where(slates < 0, 0.0, seen))

    def mood(self, who: Integers, at: Integers) -> Floats:
        """Return what a complaint takes from the log odds of each customer at each moment; 0 before it."""
        complaint = self.customers.complaint[who]
        since = np.where(complaint == NEVER, -1, at - np.minimum(complaint, at + 1)) / DAY
        return np.asarray(np.where(since < 0, 0.0, COMPLAINT_WEIGHT * np.exp(-np.maximum(since, 0.0) / COMPLAINT_DAYS)))


def hour_of(at: Integers) -> Floats:
    """Hours since midnight, UTC, with their fraction."""
    return np.asarray(at % DAY / HOUR)


def weekend(at: Integers) -> Truths:
    """Return whether moments lie on a Saturday or Sunday, UTC."""
    return np.asarray((at // DAY + 3) % 7 >= 5)  # 1970-01-01 was a Thursday
