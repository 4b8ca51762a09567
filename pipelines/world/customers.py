"""Customers of a simulated world: what can be known of them, and the tastes that nobody sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.world.settings import CATEGORIES, CUSTOMERS, DAY, NOW, SEGMENTS, Floats, Integers, Truths, WorldSettings

NEW_SHARE = 0.1
"""Customers who join during the run: nothing is known of them."""
ANONYMOUS_SHARE = 0.08
"""Customers who come under an anonymous id at first, and log in during the run."""
WITHOUT_CONSENT_SHARE = 0.08
BOTS_SHARE = 0.01
COMPLAINTS_SHARE = 0.25
SEGMENT_SEEN_SHARE = 0.85
"""How often the segment that a business writes down is the true one."""
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Customers:
    """One entry a customer in every array; moments are microseconds since 1970.

    Attributes:
        segment, segment_seen: the true segment, and the one in the table; positions in `SEGMENTS`.
        taste: log odds for each of `CATEGORIES` at `NOW`, shape (customers, categories).
        thrift: how much a price, in standard deviations of its logarithm, lowers log odds; 0 or more.
        activity: weight with which the customer is the next who comes.
        joined: before that nobody knows them; before the history for most.
        login: until then visits of the run are anonymous; 0 for those who are always logged in.
        complaint: when the customer complained, `NEVER` for most.
        consents: whether their data may be used for personalization.
        bot: whether it is no customer at all: comes often, clicks at random, accepts nothing.
    """

    ids: list[str]
    segment: Integers
    segment_seen: Integers
    birth_year: Integers
    taste: Floats
    thrift: Floats
    activity: Floats
    joined: Integers
    login: Integers
    complaint: Integers
    consents: Truths
    bot: Truths

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def new(self) -> Truths:
        """Who joins during the run."""
        return self.joined > NOW

    def anonymous_id(self, number: int) -> str:
        """Return the id of the visitor's browser."""
        return f"a{number:06d}"


def draw_customers(settings: WorldSettings) -> Customers:
    """Tastes lie around those of the segment; bots are the last entries, new customers stand before them."""
    random, count, kinds = settings.generator(CUSTOMERS), settings.customers, len(CATEGORIES)
    segment = random.integers(len(SEGMENTS), size=count)
    seen = np.where(random.random(count) < SEGMENT_SEEN_SHARE, segment, random.integers(len(SEGMENTS), size=count))
    centres = random.normal(0.0, 0.7, (len(SEGMENTS), kinds))
    taste = centres[segment] + random.normal(0.0, 0.9, (count, kinds))
    thrift = random.gamma(4.0, 0.1, count) * np.where(segment == SEGMENTS.index("thrifty"), 2.0, 1.0)
    activity = random.lognormal(0.0, 0.6, count)
    bots, new = max(1, round(BOTS_SHARE * count)), max(1, round(NEW_SHARE * count))
    number = np.arange(count)
    bot = number >= count - bots
    joins = ~bot & (number >= count - bots - new)
    span = settings.live_days * DAY
    joined = np.where(joins, NOW + 1 + (random.random(count) * 0.8 * span).astype(np.int64), settings.begin)
    logs_in = ~bot & (random.random(count) < ANONYMOUS_SHARE)
    login = np.where(
        logs_in,
        np.maximum(joined, NOW) + 1 + (random.random(count) * 0.9 * (settings.end - np.maximum(joined, NOW))),
        0,
    )
    whole = settings.end - settings.begin
    complaint = settings.begin + (random.random(count) * whole).astype(np.int64)
    complains = ~bot & (random.random(count) < COMPLAINTS_SHARE) & (complaint > joined)
    return Customers(
        ids=[f"c{at:06d}" for at in range(count)],
        segment=segment,
        segment_seen=seen,
        birth_year=random.integers(1945, 2008, count),
        taste=taste,
        thrift=thrift,
        activity=activity,
        joined=joined,
        login=login.astype(np.int64),
        complaint=np.where(complains, complaint, NEVER),
        consents=bot | (random.random(count) >= WITHOUT_CONSENT_SHARE),
        bot=bot,
    )
