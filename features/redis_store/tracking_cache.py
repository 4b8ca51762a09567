"""Rows that were read before, kept in this process and kept true by the server: Redis' client tracking over RESP3.

A tracked connection is told when a key that it has read changes, expires or is deleted, also when a missing one is
created. A row that is kept is what the store holds, because

* a reply is kept only if its key was not named, and all were not dropped, since the read was sent. The server notes the
  key when it runs the read, and from then on tells of the first change. Whether the news is handled before the row is
  kept (then the reading is void) or after (then the row goes), an old row does not stay. News of an earlier change
  voids it too: that costs a read.
* a row counts only with the session that it was read in. The loss of the connection, a FLUSHALL, and a node of a
  cluster that loses slots end the session, and all its rows with it, at once and in one step; their memory goes as
  others come.
* replies and news come in one order, and so every reply proves that what the server told before is done with: as of the
  moment when its command was sent. A row counts only while that is at most `NEAR_CACHE_SILENCE_SECONDS_MAX` ago, so
  that a server that is gone without a word ends it too. Rows in use send a PING when no other reply came for
  `NEAR_CACHE_PROBE_SECONDS`.

What no server tells of (SWAPDB; a key that has expired and is not yet removed; a cluster node that was cut off from the
others, not from us) is bounded by `NEAR_CACHE_AGE_SECONDS_MAX`. Plain tracking, not BCAST: a materialization writes
every customer, and only those that are kept concern us.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from features.columns.rows import KeyedRow, OnlineRow

NEAR_CACHE_SILENCE_SECONDS_MAX = 2.0
"""Bound on how long a change can go unnoticed while the server says nothing."""
NEAR_CACHE_PROBE_SECONDS = 0.5
NEAR_CACHE_AGE_SECONDS_MAX = 60.0
"""Bound on the age of a row: after it the store is asked again, whatever it told."""
NO_SESSION = 0

logger = logging.getLogger("opportune.near_cache")


class Reading:
    """A read on its way: its key, the session that it was sent in, and when; `NO_SESSION` is never kept."""

    __slots__ = ("key", "sent", "session")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.session = NO_SESSION
        self.sent = 0.0


class NearCache:
    """Rows by Redis key, at most `rows_max`; the least recently used goes first. Belongs to one event loop's thread."""

    def __init__(self, rows_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rows_max = rows_max
        self.clock = clock
        # (session, sent, numbers, event_times, keys, values, keys, values, …): a tuple that holds nothing but numbers
        # and arrays is left out by Python's garbage collector, which would else walk every kept row, some 70 ms for
        # 100,000 of them.
        self._kept: OrderedDict[bytes, tuple[Any, ...]] = OrderedDict()
        self.sessions: dict[int, Session] = {}
        self.numbers = itertools.count(NO_SESSION + 1)
        self._readings: dict[bytes, Reading] = {}
        self._refusal = ""

    def __len__(self) -> int:
        """Rows in memory, those included that count no more."""
        return len(self._kept)

    def get(self, key: bytes) -> OnlineRow | None:
        """Return the kept row, its arrays read-only; None where the store must be asked."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        session = self.sessions.get(kept[0])
        now = self.clock()
        if session is None or now - kept[1] > NEAR_CACHE_AGE_SECONDS_MAX:
            del self._kept[key]
            return None
        silence = now - session.heard
        if silence > NEAR_CACHE_SILENCE_SECONDS_MAX:
            return None  # counts again when the read that follows is answered
        if silence > NEAR_CACHE_PROBE_SECONDS:
            session.ask(now)
        self._kept.move_to_end(key)
        families = [
            None if keys is None else KeyedRow(keys, values)
            for keys, values in zip(kept[4::2], kept[5::2], strict=True)
        ]
        return OnlineRow(kept[2], families, kept[3])

    def begin(self, key: bytes) -> Reading:
        """Return a read that may be kept; of several of one key at once the first. `end` must follow."""
        reading = Reading(key)
        self._readings.setdefault(key, reading)
        return reading

    def end(self, reading: Reading, row: OnlineRow | None) -> None:
        """Keeps what was read, unless it may have changed since; None when nothing was."""
        if self._readings.get(reading.key) is not reading:
            return
        del self._readings[reading.key]
        if row is None or reading.session not in self.sessions:
            return
        families: list[Any] = []
        for family in row.families:
            families += [None, None] if family is None else [family.keys, family.values]
        arrays = (row.numbers, row.event_times, *families)
        for array in arrays:
            if array is not None:
                array.setflags(write=False)
        self._kept[reading.key] = (reading.session, reading.sent, *arrays)
        self._kept.move_to_end(reading.key)
        if len(self._kept) > self.rows_max:
            self._kept.popitem(last=False)

    def changed(self, key: bytes) -> None:
        """Drop a row that the store has changed, and void the read that is on its way."""
        self._kept.pop(key, None)
        self._readings.pop(key, None)

    def clear(self) -> None:
        """Ends all sessions: for an engine that goes on in another event loop."""
        self.sessions.clear()
        self._kept.clear()

    def session(self, probe: Callable[[], object]) -> Session:
        """That of a new connection; `probe` sends a PING on it."""
        return Session(self, probe)

    def refused(self, why: str) -> None:
        """Note that the server does not track: rows are read each time. Logged once a reason."""
        if why != self._refusal:
            self._refusal = why
            logger.warning("the near cache is off, every row is read from the online store: %s", why)


class Session:
    """The time in which a connection was told of all changes."""

    def __init__(self, cache: NearCache, probe: Callable[[], object]) -> None:
        self._cache, self._probe = cache, probe
        self.heard = float("-inf")
        """When the latest command was sent that was answered: what was told until then is done with."""
        self._asked = float("-inf")
        self.number = next(cache.numbers)
        cache.sessions[self.number] = self

    def sends(self, reading: Reading | None) -> float:
        """Notes that a command goes out, and with which read; the moment."""
        now = self._cache.clock()
        if reading is not None:
            reading.session, reading.sent = self.number, now
        return now

    def told(self, push: list[Any]) -> None:
        """Take what the server says unasked."""
        if not push or push[0] != b"invalidate":
            return
        if len(push) == 2 and isinstance(push[1], list):
            for key in push[1]:
                self._cache.changed(key)
        else:  # null: everything
            self.forget()

    def forget(self) -> None:
        """Drop all cached and in-flight reads; keep the connection."""
        if self._cache.sessions.pop(self.number, None) is not None:
            self.number = next(self._cache.numbers)
            self._cache.sessions[self.number] = self

    def close(self) -> None:
        """Nothing that was read counts."""
        self._cache.sessions.pop(self.number, None)

    def ask(self, elapsed_seconds: float) -> None:
        """Send a PING if none was sent of late, by a clock that only counts."""
        if elapsed_seconds - self._asked > NEAR_CACHE_PROBE_SECONDS:
            self._asked = elapsed_seconds
            self._probe()
