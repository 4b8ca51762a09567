"""The event log for an event loop: one thread a process writes all that waits in one transaction, so that many share
one sync of the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from features.common import timestamps
from features.common.errors import Failure
from features.common.moments import Micros
from features.common.yielding import give_way
from features.events import consumers
from features.events.log import EventLog
from features.events.log_errors import LogUnavailable, unavailable
from features.events.rows import Item, Result
from features.events.sqlite_file import LogLimits

logger = logging.getLogger("opportune.events")

IDLE_SECONDS = 1.0
"""Without a batch for so long, the mark of what was heard is written by itself."""
TEND_SECONDS = 0.2
"""Between two looks at the size of the write-ahead log."""


class LogBusy(Failure):
    """More waits for the log than it can take soon."""


class _Batch(NamedTuple):
    items: Sequence[Item]
    future: asyncio.Future[list[Result]]
    loop: asyncio.AbstractEventLoop
    dead: consumers.Alive | None = None
    """A worker to bury."""


class EventWriter:
    """Appends from one event loop; owns a worker's place among the hearers.

    Args:
        folder: see `log.event_folder`.
    """

    def __init__(
        self, folder: Path, limits: LogLimits | None = None, clock: Callable[[], Micros] = timestamps.now
    ) -> None:
        self.folder, self.limits = folder, limits or LogLimits()
        self._alive = consumers.begin(folder)
        self.log = EventLog(folder, self.limits, clock, self._alive.worker)
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._asked, self._written = 0, 0  # each counted by one thread alone
        self._heard, self._marked = 0, 0
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=f"events {work.__name__}", daemon=True)
            for work in (self._write, self._tend)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def worker(self) -> int:
        """The number that this process's events carry."""
        return self._alive.worker

    async def append(self, items: Sequence[Item]) -> list[Result]:
        """Write items durably. Return one result an item, in their order.

        Raises:
            LogBusy: too much waits; nothing of it was written.
            LogUnavailable: it may or may not have been written: send it again, unchanged.
        """
        if self._stop.is_set():
            raise LogUnavailable("closed", f"{self.folder}: the event log is closed")
        if self._asked - self._written + len(items) > self.limits.waiting_rows_max:
            raise LogBusy(f"expected at most {self.limits.waiting_rows_max} events that wait for the event log")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Result]] = loop.create_future()
        self._asked += len(items)
        self._queue.put(_Batch(items, future, loop))
        return await future

    def mark(self, seq: int) -> None:
        """Mark that all events of this worker up to a place were heard; it is written with the next batch, or soon."""
        self._heard = seq

    async def bury(self, dead: consumers.Alive) -> None:
        """Forget a dead worker whose events were all heard."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Result]] = loop.create_future()
        self._queue.put(_Batch((), future, loop, dead))
        await future

    def _write(self) -> None:
        while True:
            try:
                first = self._queue.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                if self._heard > self._marked:
                    self._transact([])
                continue
            batches, rows, last = [], 0, first is None
            while first is not None:
                batches.append(first)
                rows += len(first.items)
                if rows >= self.limits.transaction_rows_max:
                    break
                try:
                    first = self._queue.get_nowait()
                except queue.Empty:
                    break
                last = first is None
            if batches:
                self._transact(batches)
            if last:
                return

    def _transact(self, batches: list[_Batch]) -> None:
        give_way()
        heard = self._heard
        items = [item for batch in batches for item in batch.items]
        results: list[Result] | Exception
        try:
            results = self.log.append(items, heard or None)
            self._marked = heard
        except LogUnavailable as lack:
            results = lack
        except Exception as fault:  # noqa: BLE001 (the edge of a thread: whoever waits must be answered)
            logger.error("the event log failed: %s", type(fault).__name__)
            results = fault
        self._written += len(items)
        settled: dict[asyncio.AbstractEventLoop, list[tuple[_Batch, list[Result] | Exception]]] = {}
        at = 0
        for batch in batches:
            part = results if isinstance(results, Exception) else results[at : at + len(batch.items)]
            if batch.dead is not None and not isinstance(part, Exception):
                part = self._bury(batch.dead)
            at += len(batch.items)
            settled.setdefault(batch.loop, []).append((batch, part))
        for loop, answers in settled.items():
            with contextlib.suppress(RuntimeError):  # a loop that is closed waits for nothing
                loop.call_soon_threadsafe(_settle, answers)

    def _bury(self, dead: consumers.Alive) -> list[Result] | Exception:
        try:
            dead.bury(self.log)
        except (LogUnavailable, OSError) as lack:
            return unavailable(dead.path, lack)
        return []

    def _tend(self) -> None:
        """Brings the write-ahead log into the file: within a transaction that would cost 2 to 12 ms."""
        while not self._stop.wait(TEND_SECONDS):
            size = self.log.wal_bytes()
            if size > self.limits.wal_bytes:
                with contextlib.suppress(LogUnavailable):
                    self.log.checkpoint(whole=size > self.limits.wal_bytes_max)

    def close(self) -> None:
        """After what waits was written. What was not heard is left to others."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._alive.release()
        self.log.close()


def _settle(answers: list[tuple[_Batch, list[Result] | Exception]]) -> None:
    for batch, answer in answers:
        if batch.future.done():
            continue  # nobody waits any more
        if isinstance(answer, Exception):
            batch.future.set_exception(answer)
        else:
            batch.future.set_result(answer)
