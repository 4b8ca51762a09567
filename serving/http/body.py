"""Takes a request's body while it arrives: whole, within its size, within its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter_ns

from serving.http import problems
from serving.http.admission import RequestLimits
from serving.http.routing import Receive, Scope


class Disconnected(Exception):
    """The client left before its body was complete: there is nobody to answer."""


class BodyReader:
    """Reads bodies against one deadline. A timer for each request would cost more than the request, so that the owner
    calls `expire` every now and then: all bodies have the same time, and the first that came are the first to be late.
    """

    def __init__(self, seconds_max: float, clock: Callable[[], int] = perf_counter_ns) -> None:
        self._nanoseconds_max = round(seconds_max * 1e9)
        self._clock = clock
        self._deadlines: dict[asyncio.Task[object], int] = {}
        self._late: set[asyncio.Task[object]] = set()

    def __len__(self) -> int:
        """Bodies that are arriving now."""
        return len(self._deadlines)

    async def read(self, receive: Receive, bytes_max: int, started: int) -> bytes:
        """Return the whole body; raises `BodyTooLarge` as soon as it is, `ReceiveTimeout`, or `Disconnected`."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a body is read within a task")
        self._deadlines[task] = started + self._nanoseconds_max
        try:
            message = await receive()
            body: bytes = message.get("body", b"")
            if message.get("more_body") and len(body) <= bytes_max:
                gathered = bytearray(body)
                while message.get("more_body") and len(gathered) <= bytes_max:
                    message = await receive()
                    gathered += message.get("body", b"")
                body = bytes(gathered)
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            self._late.discard(task)
            task.uncancel()
            raise problems.ReceiveTimeout() from None
        finally:
            self._deadlines.pop(task, None)
        if message["type"] == "http.disconnect":
            raise Disconnected
        if len(body) > bytes_max:
            raise problems.BodyTooLarge()
        return body

    def expire(self) -> None:
        """Ends the reading of bodies whose time is over."""
        now = self._clock()
        for task, deadline in list(self._deadlines.items()):
            if deadline > now:
                break
            del self._deadlines[task]
            self._late.add(task)
            task.cancel()


class StrangerBodies:
    """Reads the bodies of those who have shown no key: few, small and quick ones, and few of one address, so that they
    take no place from others.
    """

    def __init__(self, limits: RequestLimits) -> None:
        self._limits, self._reader = limits, BodyReader(limits.stranger_seconds_max)
        self._count, self._bytes = 0, 0
        self._addresses: dict[str, int] = {}

    async def read(self, receive: Receive, bytes_max: int, started: int, scope: Scope, length: bytes | None) -> bytes:
        """Return the whole body, as `BodyReader` does; raises `Overloaded` when there is no place.

        Args:
            length: as it was declared, if it was.
        """
        limits, client = self._limits, scope.get("client")
        address = client[0] if client else ""
        of_address, size = self._addresses.get(address, 0), bytes_max if length is None else int(length)
        if (
            self._count >= limits.stranger_bodies_max
            or of_address >= limits.stranger_address_bodies_max
            or self._bytes + size > limits.stranger_bytes_max
        ):
            raise problems.Overloaded()
        self._addresses[address] = of_address + 1
        self._count += 1
        self._bytes += size
        try:
            return await self._reader.read(receive, bytes_max, started)
        finally:
            self._count -= 1
            self._bytes -= size
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    def expire(self) -> None:
        """End the reading of bodies whose time is over."""
        self._reader.expire()
