"""Up to which place of the event log the ledger has heard all events of this worker."""

from __future__ import annotations

import itertools


class Watermark:
    """Never ahead of what was heard. A place belongs to the request that wrote it, from before it is written until it
    was heard.

    `begin` comes before the events are written, then `stored`, then either `done` or `missed`: what was missed, or may
    have been written without our knowing, is read again from the log, from the place that `take_missed` gives.
    """

    def __init__(self) -> None:
        self._tokens = itertools.count(1)
        self._floors: dict[int, int] = {}
        self._last = 0
        self._missed: int | None = None

    def begin(self) -> int:
        """Return a token for what is about to be written. All that is at or below the last known place belongs to
        others.
        """
        token = next(self._tokens)
        self._floors[token] = self._last
        return token

    def stored(self, seq: int) -> None:
        """An event of this worker has this place."""
        self._last = max(self._last, seq)

    def done(self, token: int) -> None:
        """Note that all events of the token were heard."""
        del self._floors[token]

    def missed(self, token: int) -> None:
        """Some events of the token may not have been heard."""
        floor = self._floors.pop(token)
        self._missed = floor if self._missed is None else min(self._missed, floor)

    def take_missed(self) -> tuple[int, int] | None:
        """Return a token and the place after which events have to be heard again; None where none have. Ends like any
        other token.
        """
        if self._missed is None:
            return None
        token, floor = next(self._tokens), self._missed
        self._floors[token], self._missed = floor, None
        return token, floor

    @property
    def behind(self) -> bool:
        """Whether something has to be heard again."""
        return self._missed is not None

    @property
    def place(self) -> int:
        """All events of this worker up to here were heard; 0: nothing is known."""
        floors = [*self._floors.values(), *(() if self._missed is None else (self._missed,))]
        return min(floors, default=self._last)
