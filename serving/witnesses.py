"""Customers who were known lately: where there is no row of everyone to be missed, they tell whether the online store was emptied."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from features.online import OnlineEngine, StoreUnavailable

WITNESSES_MAX = 3
"""Several, since one of them may be forgotten."""


class Witnesses:
    """A few units that had a row.

    Args:
        seconds: between two times that they are asked.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._units: deque[str] = deque(maxlen=WITNESSES_MAX)
        self._asked = time.monotonic()

    def saw(self, unit: str) -> None:
        """A unit has a row."""
        if unit not in self._units:
            self._units.append(unit)

    async def empty(self, engine: OnlineEngine, strangers: int, deadline_seconds: float) -> bool | None:
        """Whether the store has lost even those who were known; None where that was not asked, or cannot be said.

        Args:
            strangers: units without a row that came since the last time; where there are none nothing is asked.
        """
        if not strangers or not self._units or time.monotonic() - self._asked < self._seconds:
            return None
        self._asked = time.monotonic()
        try:
            async with asyncio.timeout(deadline_seconds):
                found = [engine.read_now(unit) or await engine.read(unit) for unit in tuple(self._units)]
        except (StoreUnavailable, TimeoutError):
            return None
        return not any(row.known for row in found)
