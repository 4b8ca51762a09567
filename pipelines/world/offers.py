"""Offers of a simulated world: category, price, value, validity, and how good they truly are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from features.columns.catalogue import UNBOUNDED
from pipelines.world.settings import CATEGORIES, DAY, NOW, OFFERS, Floats, Integers, Truths, WorldSettings

NEW_SHARE = 0.1
"""Offers that begin during the run: nobody was ever shown them."""
ENDING_SHARE = 0.1
"""Offers that end during the run."""


@dataclass(frozen=True)
class Offers:
    """One entry an offer in every array.

    Attributes:
        category: position in `CATEGORIES`.
        price, value: in euros: what it costs the customer, and what an acceptance is worth to the business.
        quality: what it adds to log odds, for everybody; no column tells it.
        begins, ends: microseconds since 1970, the end exclusive; -`UNBOUNDED` and `UNBOUNDED` where there is none.
    """

    ids: list[str]
    category: Integers
    price: Floats
    value: Floats
    quality: Floats
    begins: Integers
    ends: Integers

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def dearness(self) -> Floats:
        """The logarithm of the price, in standard deviations from its mean."""
        logarithm = np.log(self.price)
        return np.asarray((logarithm - logarithm.mean()) / logarithm.std())

    @property
    def new(self) -> Truths:
        """Which begin during the run."""
        return self.begins > NOW

    def valid(self, moments: Integers) -> Truths:
        """Return which may be shown at some moments, shape (moments, offers)."""
        return (self.begins <= moments[:, None]) & (moments[:, None] < self.ends)


def draw_offers(settings: WorldSettings) -> Offers:
    """Return offers in every category; those that begin late are the last ones, those that end early stand before
    them.
    """
    random, count = settings.generator(OFFERS), settings.offers
    number, span = np.arange(count), settings.live_days * DAY
    new, ending = max(1, round(NEW_SHARE * count)), max(1, round(ENDING_SHARE * count))
    late = number >= count - new
    early = ~late & (number >= count - new - ending)
    price = np.round(random.lognormal(3.0, 0.6, count), 2)
    moments = random.random((2, count))
    return Offers(
        ids=[f"o{at:05d}" for at in number],
        category=number % len(CATEGORIES),
        price=price,
        value=np.round(price * random.uniform(0.1, 0.3, count), 2),
        quality=random.normal(0.0, 0.4, count),
        begins=np.where(late, NOW + 1 + (moments[0] * 0.5 * span).astype(np.int64), -UNBOUNDED),
        ends=np.where(early, NOW + 1 + ((0.3 + 0.6 * moments[1]) * span).astype(np.int64), UNBOUNDED),
    )
