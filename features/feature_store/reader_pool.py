"""A few threads that read for the event loop, where a library can only block: bounded in number and in what waits for
them.

A thread that hangs keeps its place: nothing can end a thread from outside. After `HANG_SECONDS_MAX` another one stands
in for it, `STAND_INS_MAX` at most at a time, so that a store whose answers got lost does not take all readers along for
good.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, Full, Queue
from time import monotonic
from typing import Generic, TypeVar

from features.columns.rows import StoreUnavailable

THREADS = 4
WAITING_MAX = 64
"""Reads that wait for a thread; beyond, they fail at once."""
HANG_SECONDS_MAX = 30.0
STAND_INS_MAX = 8

Tool = TypeVar("Tool")
Given = TypeVar("Given")


class _Job(Generic[Tool, Given]):
    def __init__(self, work: Callable[[Tool], Given]) -> None:
        self.work = work
        self.future: Future[Given] = Future()

    def run(self, tool: Tool) -> None:
        if self.future.set_running_or_notify_cancel():  # whoever waited may have gone
            try:
                self.future.set_result(self.work(tool))
            except StoreUnavailable as error:
                self.future.set_exception(error)


class Readers(Generic[Tool]):
    """Threads that each own a tool, made and ended by the thread itself, so that a tool need not be safe for several.

    Args:
        make: makes a tool; it must not fail. It may wait, as a read may.
        end: takes it back; it must not fail.
    """

    def __init__(
        self,
        make: Callable[[], Tool],
        end: Callable[[Tool], None],
        threads: int = THREADS,
        hang_seconds: float = HANG_SECONDS_MAX,
    ) -> None:
        self._make, self._end, self._hang_seconds = make, end, hang_seconds
        self._jobs: Queue[_Job[Tool, object] | None] = Queue(WAITING_MAX)
        self._changing = threading.Lock()
        self._closed = False
        self._lost: list[_Reader[Tool]] = []
        self._readers = [self._started() for _ in range(threads)]

    def submit(self, work: Callable[[Tool], Given]) -> Future[Given]:
        """Return the result to come, or StoreUnavailable, which is all that `work` may raise.

        Raises:
            StoreUnavailable: when too many reads wait already, or the readers were closed.
        """
        job = _Job(work)
        with self._changing:
            if self._closed:
                raise StoreUnavailable("the engine was closed")
            self._stand_in()
            try:
                self._jobs.put_nowait(job)  # type: ignore[arg-type]  # a queue of jobs of any result
            except Full:
                raise StoreUnavailable("too many reads are waiting for the online store") from None
        return job.future

    def close(self) -> None:
        """Threads end after the read that they are at; what waits is told that it waits in vain."""
        with self._changing:
            self._closed = True
            try:
                while True:
                    job = self._jobs.get_nowait()
                    if job is not None and job.future.set_running_or_notify_cancel():
                        job.future.set_exception(StoreUnavailable("the engine was closed"))
            except Empty:
                pass
            for _ in self._readers:
                self._jobs.put_nowait(None)

    def _started(self) -> _Reader[Tool]:
        reader = _Reader(self._jobs, self._make, self._end)
        reader.start()
        return reader

    def _stand_in(self) -> None:
        """Starts a reader in the place of each that has hung for long."""
        hung_before = monotonic() - self._hang_seconds
        for place, reader in enumerate(self._readers):
            if reader.busy_since <= hung_before:
                self._lost = [lost for lost in self._lost if lost.is_alive()]
                if len(self._lost) < STAND_INS_MAX:
                    reader.replaced = True
                    self._lost.append(reader)
                    self._readers[place] = self._started()


class _Reader(threading.Thread, Generic[Tool]):
    """One thread; a daemon, so that a read that hangs does not keep the process from ending."""

    def __init__(
        self, jobs: Queue[_Job[Tool, object] | None], make: Callable[[], Tool], end: Callable[[Tool], None]
    ) -> None:
        super().__init__(name="opportune-reader", daemon=True)
        self.busy_since = float("inf")
        """Monotonic seconds; infinite while there is nothing to do."""
        self.replaced = False
        self._jobs, self._make, self._end = jobs, make, end

    def run(self) -> None:
        self.busy_since = monotonic()
        tool = self._make()
        self.busy_since = float("inf")
        try:
            while not self.replaced and (job := self._jobs.get()) is not None:
                self.busy_since = monotonic()
                job.run(tool)
                self.busy_since = float("inf")
                del job  # its result need not outlive it here
        finally:
            self._end(tool)
