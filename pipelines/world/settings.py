"""What makes a simulated world: its size and seed, its calendar, and the generators that all its draws come from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from features.common.timestamps import DAY_SECONDS, MICROSECONDS, to_microseconds

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Truths = NDArray[np.bool_]

CUSTOMERS_MIN, CUSTOMERS_MAX = 50, 200_000
OFFERS_MIN, OFFERS_MAX = 10, 5_000
DECISIONS_MIN, DECISIONS_MAX = 100, 1_000_000
SEED_MAX = 2**32 - 1

CATEGORIES = ("books", "coffee", "garden", "music", "sports", "travel")
SEGMENTS = ("explorer", "family", "loyal", "thrifty")
CHANNELS = ("app", "store", "web")
PLACEMENT = "home"
SLATE_OFFERS = 4
"""Offers that the placement shows."""

DAY = DAY_SECONDS * MICROSECONDS
HOUR = DAY // 24
NOW = to_microseconds(datetime(2026, 1, 5, tzinfo=UTC))
"""Where history ends and the run begins: a Monday's midnight, in the world's own time. An import moves it by whole
weeks.
"""
WINDOW_DAYS = 7
"""The attribution window, within which all outcomes follow."""

# Spawn keys: each noun draws from a generator of its own, so that more of one thing does not change another.
CUSTOMERS, OFFERS, SEASONS, PURCHASES, HISTORY, LIVE = range(6)


class WorldSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same settings make the same world, to the byte."""

    customers: Annotated[int, Meta(ge=CUSTOMERS_MIN, le=CUSTOMERS_MAX)] = 2_000
    """All of them: strangers who join during the run, and bots, among them."""
    offers: Annotated[int, Meta(ge=OFFERS_MIN, le=OFFERS_MAX)] = 60
    seed: Annotated[int, Meta(ge=0, le=SEED_MAX)] = 7
    history_days: Annotated[int, Meta(ge=30, le=365)] = 120
    """Length of the imported history, up to `NOW`."""
    history_decisions_each: Annotated[int, Meta(ge=1, le=100)] = 10
    """Imported decisions a customer, on the average."""
    live_days: Annotated[int, Meta(ge=1, le=90)] = 21
    """Length of the run, from `NOW`."""

    @property
    def begin(self) -> int:
        """The first moment of history, microseconds since 1970."""
        return NOW - self.history_days * DAY

    @property
    def end(self) -> int:
        """The last moment of the run."""
        return NOW + self.live_days * DAY

    def generator(self, *noun: int) -> np.random.Generator:
        """Return a generator for one noun, independent of those of others."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=noun))
