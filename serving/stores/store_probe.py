"""Customers who were known lately: where there is no row of everyone to be missed, they tell whether the online store
was emptied.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from features.columns.rows import OnlineEngine, StoreUnavailable

WITNESSES_MAX = 3
"""Several, since one of them may be forgotten."""


class Witnesses:
    """A few units that had a row.

    Args:
        seconds: between two times that they are asked.
        doubt_seconds: the same where there is doubt.
    """

    def __init__(self, seconds: float, doubt_seconds: float) -> None:
        self._seconds, self._doubt_seconds = seconds, doubt_seconds
        self._units: deque[str] = deque(maxlen=WITNESSES_MAX)
        self._asked = time.monotonic()

    def saw(self, unit: str) -> None:
        """Note that a unit has a row."""
        if unit not in self._units:
            self._units.append(unit)

    @property
    def any(self) -> bool:
        """Return whether there is anybody to ask about."""
        return bool(self._units)

    async def empty(self, engine: OnlineEngine, strangers: int, doubtful: bool, deadline_seconds: float) -> bool | None:
        """Return whether the store has lost even those who were known; None where that was not asked, or cannot be
        said.

        Args:
            strangers: units without a row that came since the last time.
            doubtful: whether the store was empty, or has failed. Where it was not, and no strangers came, nothing is
                asked.
        """
        wait = self._doubt_seconds if doubtful else self._seconds
        if not (strangers or doubtful) or not self._units or time.monotonic() - self._asked < wait:
            return None
        self._asked = time.monotonic()
        try:
            async with asyncio.timeout(deadline_seconds):
                found = [engine.read_now(unit) or await engine.read(unit) for unit in tuple(self._units)]
        except (StoreUnavailable, TimeoutError):
            return None
        return not any(row.known for row in found)
