"""How many requests a caller may make: a bucket of tokens that fills as time goes by."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from serving.http.problems import RateLimited


class Rate:
    """One bucket for each name; names are those of configured keys, so that they cannot grow without bound.

    Args:
        per_second: tokens a second, and the most that a bucket holds; one at least, so that a second's wait always
            helps.
    """

    def __init__(self, per_second: int, clock: Callable[[], float] = monotonic) -> None:
        if per_second < 1:
            raise ValueError(f"expected at least one request a second, got {per_second}")
        self._per_second, self._clock = float(per_second), clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """Tokens, and when they were counted."""

    def take(self, name: str) -> None:
        """Take a token.

        Raises:
            RateLimited: there is none.
        """
        now = self._clock()
        tokens, counted = self._buckets.get(name, (self._per_second, now))
        tokens = min(self._per_second, tokens + (now - counted) * self._per_second)
        if tokens < 1:
            self._buckets[name] = tokens, now
            raise RateLimited()
        self._buckets[name] = tokens - 1, now
