"""The beat of the front door: how late the event loop wakes, what expires, and keys that change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter_ns

from serving.http.auth import BadKeys, Keys
from serving.runtime.metric_families import Histogram

logger = logging.getLogger("opportune.lane")

BEAT_SECONDS = 0.05
KEYS_REFRESH_BEATS = 20


class Heartbeat:
    """Runs on an event loop, from `start` to `stop`.

    Args:
        lag: takes how late each beat is.
        on_beat: called with each beat; microseconds.
    """

    def __init__(self, keys: Keys, lag: Histogram, on_beat: Callable[[], object]) -> None:
        self._keys, self._lag, self._on_beat, self._lag_slot = keys, lag, on_beat, lag.slot()
        self._timer: asyncio.TimerHandle | None = None
        self._complaint = ""

    def start(self) -> None:
        """Start on the running loop; nothing happens if it has started already."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(BEAT_SECONDS, self._beat, loop, perf_counter_ns(), 1)

    def stop(self) -> None:
        """Stop, if it has started."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self, loop: asyncio.AbstractEventLoop, before: int, count: int) -> None:
        now = perf_counter_ns()
        self._lag.observe(max(0, now - before - round(BEAT_SECONDS * 1e9)), self._lag_slot)
        self._on_beat()
        if count % KEYS_REFRESH_BEATS == 0:
            self._refresh_keys()  # a stat of one file; a thread of its own would contend for the interpreter
        self._timer = loop.call_later(BEAT_SECONDS, self._beat, loop, now, count + 1)

    def _refresh_keys(self) -> None:
        try:
            if self._keys.refresh():
                logger.info("keys were read again")
            self._complaint = ""
        except (BadKeys, OSError) as refusal:
            if str(refusal) != self._complaint:
                self._complaint = str(refusal)
                logger.error("keys stay as they were: %s", refusal)
