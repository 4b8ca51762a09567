"""One connection to a Redis, kept up: commands of concurrent requests share it, in order, without waiting for each
other.

Replies match commands by their order alone. That is safe because nothing is ever taken out of the order: a request that
is cancelled leaves its place behind, and when one is late the connection is dropped with all that wait on it. There are
no retries.

A circuit breaker stands in front: after `FAILURES_MAX` failures in a row requests fail at once, while connections are
tried in the background, with a growing, jittered pause. One that answers PING closes the breaker half: the next failure
opens it again, the next reply closes it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import cast

import hiredis

from features.columns.rows import StoreUnavailable
from features.redis_store.address import Address, Node, command
from features.redis_store.tracking_cache import NearCache, Reading, Session

FAILURES_MAX = 3
PAUSE_SECONDS = 0.05
PAUSE_SECONDS_MAX = 1.0
CONNECT_SECONDS_MAX = 0.5
WAITING_MAX = 4096
"""Commands on their way; beyond, requests fail at once."""

_NOT_YET = object()
_PING, _ASKING = command("PING"), command("ASKING")
Reply = object


class Link:
    """A node's connection. Belongs to one event loop. With a near cache, the server is asked to tell of changes."""

    def __init__(self, node: Node, address: Address, timeout_seconds: float, near: NearCache | None = None) -> None:
        self.node = node
        self.address = address
        self.timeout_seconds = timeout_seconds
        self.near = near
        self.failures = 0
        self.open = False
        """Whether the breaker is open: requests fail at once."""
        self.why = "not connected yet"
        self._wire: _Wire | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._closed = False
        self._track = near is not None

    async def call(self, payload: bytes, reading: Reading | None = None) -> Reply:
        """Return the reply to a command; a server's error is returned as `hiredis.ReplyError`.

        Raises:
            StoreUnavailable: when it does not come within the timeout, or the breaker is open.
        """
        wire = self._wire
        if wire is None:
            wire = await self._connected()
        return await wire.send(payload, reading)

    def begin(self, payload: bytes) -> asyncio.Future[Reply] | None:
        """Return the same on its way at once, with no task of its own; None where there is no connection: then
        `call`.
        """
        return None if self._wire is None else self._wire.send(payload)

    async def call_asking(self, payload: bytes) -> Reply:
        """Return the same from a node that is taking over the key's slot. ASKING holds for the next command: nothing
        may come between.
        """
        wire = self._wire or await self._connected()
        wire.send(_ASKING).add_done_callback(_passed)
        return await wire.send(payload)

    def forget(self) -> None:
        """Drop what was read here from the near cache."""
        if self._wire is not None and self._wire.session is not None:
            self._wire.session.forget()

    def close(self) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._wire is not None:
            self._wire.drop("the engine was closed")

    def answered(self, wire: _Wire) -> None:
        """Note that a reply came; what a new connection answers to its greeting does not count."""
        if self._wire is wire:
            self.failures = 0

    def lost(self, wire: _Wire, why: str) -> None:
        """Note that the connection in use has failed; one that is still being made is its maker's concern."""
        if self._wire is wire:
            self._wire = None
            self._up.clear()
            self._failed(why)
            self._connect()

    def _failed(self, why: str) -> None:
        self.failures += 1
        self.why = why
        self.open = self.open or self.failures >= FAILURES_MAX

    async def _connected(self) -> _Wire:
        self._connect()
        if not self.open:
            try:
                await asyncio.wait_for(self._up.wait(), self.timeout_seconds)
            except TimeoutError:
                if not self.failures:  # else the last failure says more
                    self.why = "not connected in time"
        if self._wire is None:
            raise StoreUnavailable(f"no connection to the online store at {self.node[0]}:{self.node[1]}: {self.why}")
        return self._wire

    def _connect(self) -> None:
        if not self._closed and (self._connecting is None or self._connecting.done()):
            self._connecting = asyncio.get_running_loop().create_task(self._keep_trying())

    async def _keep_trying(self) -> None:
        tries = max(0, self.failures - 1)  # after one failure at once: it may have been the connection alone
        while not self._closed:
            if tries:
                pause = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS * 2 ** min(tries - 1, 10))
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - keeps workers from coming back in step, no secret
            tries += 1
            try:
                wire = await asyncio.wait_for(self._opened(), max(CONNECT_SECONDS_MAX, self.timeout_seconds))
            except (OSError, TimeoutError, StoreUnavailable) as error:
                self._failed(str(error) or "no connection in time")
                continue
            self._wire, self.open = wire, False
            self._drop_if_closed(wire)
            # Half closed: one more failure opens it again.
            self.failures = min(self.failures, FAILURES_MAX - 1)
            self._up.set()
            return

    def _drop_if_closed(self, wire: _Wire) -> None:
        """A cancellation that comes when the connection is there already is lost."""
        if self._closed:
            wire.drop("the engine was closed")

    async def _opened(self) -> _Wire:
        """Return a new connection that has answered its greeting."""
        host, port = self.node
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(lambda: _Wire(self), host, port, ssl=self.address.tls)
        try:
            for greeting in self.address.greeting():
                reply = await wire.send(greeting)
                if isinstance(reply, hiredis.ReplyError):
                    raise StoreUnavailable(f"the online store refused the connection: {reply}")
            if self.near is not None:
                await self._tracked(wire, self.near)
        except BaseException:
            wire.drop("the greeting failed")
            raise
        return wire

    async def _tracked(self, wire: _Wire, near: NearCache) -> None:
        """Asks the server to tell of changes. One that hangs up on that is not asked on the next connection."""
        if not self._track:
            self._track = True
            near.refused(f"{self.node[0]}:{self.node[1]} did not answer HELLO 3 and CLIENT TRACKING")
            return
        wire.session = near.session(wire.probe)
        self._track = False
        for request in self.address.tracking():
            reply = await wire.send(request)
            if isinstance(reply, hiredis.ReplyError):
                wire.session.close()
                wire.session = None
                near.refused(f"{self.node[0]}:{self.node[1]} answered: {reply}")
                break
        self._track = True


class _Wire(asyncio.Protocol):
    """The protocol of one connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.session: Session | None = None
        """Set when the server tells this connection of changes, or is asked to."""
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._waiting: deque[tuple[asyncio.Future[Reply], float, float]] = deque()
        self._unsent: list[bytes] = []
        self._watch: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._dropped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, payload: bytes, reading: Reading | None = None) -> asyncio.Future[Reply]:
        """Sends with everything else that is sent in the same turn of the loop."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self._dropped or len(self._waiting) >= WAITING_MAX:
            why = "the connection was lost" if self._dropped else "too many reads are waiting for the online store"
            future.set_exception(StoreUnavailable(why))
            return future
        deadline = self._loop.time() + self._link.timeout_seconds
        session = self.session
        self._waiting.append((future, deadline, 0.0 if session is None else session.sends(reading)))
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(payload)
        if self._watch is None:
            self._watch = self._loop.call_at(deadline, self._look)
        return future

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOT_YET:
                session = self.session
                if session is not None and isinstance(reply, hiredis.PushNotification):
                    session.told(reply)
                    continue
                if not self._waiting:
                    self.drop("the online store answered what was not asked")
                    return
                future, _, sent = self._waiting.popleft()
                if session is not None:
                    session.heard = sent
                if not future.done():
                    future.set_result(reply)
                self._link.answered(self)
        except hiredis.ProtocolError as error:
            self.drop(f"the online store does not speak Redis: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self.drop(f"the connection was lost: {error or 'closed by the server'}")

    def drop(self, why: str) -> None:
        """Ends the connection; whoever waits on it gets StoreUnavailable."""
        if self._dropped:
            return
        self._dropped = True
        if self.session is not None:
            self.session.close()
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        waiting, self._waiting = self._waiting, deque()
        for future, _, _ in waiting:
            if not future.done():
                future.set_exception(StoreUnavailable(why))
        self._link.lost(self, why)

    def probe(self) -> None:
        """Has the server prove that it is there, with nobody waiting for it."""
        self.send(_PING).add_done_callback(_passed)

    def _flush(self) -> None:
        payload, self._unsent = b"".join(self._unsent), []
        if self._transport is not None and not self._dropped:
            self._transport.write(payload)

    def _look(self) -> None:
        """Check whether the oldest command is late; one timer serves all."""
        self._watch = None
        if self._waiting:
            deadline = self._waiting[0][1]
            if deadline <= self._loop.time():
                self.drop(f"the online store did not answer within {self._link.timeout_seconds * 1_000:.0f} ms")
            else:
                self._watch = self._loop.call_at(deadline, self._look)


def _passed(future: asyncio.Future[Reply]) -> None:
    """Consume the error of a reply that nobody waits for; those who wait on the connection get theirs."""
    if not future.cancelled():
        future.exception()
