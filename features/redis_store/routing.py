"""Which node answers for a key: the only one there is, or the one that a cluster's slot map names."""

from __future__ import annotations

import asyncio
from binascii import crc_hqx
from typing import Protocol

import hiredis

from features.columns.rows import StoreUnavailable
from features.redis_store.address import Address, Node, command, moved_to
from features.redis_store.connection import Link, Reply
from features.redis_store.tracking_cache import NO_SESSION, NearCache, Reading

SLOTS = 16_384
REFRESH_SECONDS = 0.5
"""A cluster's slot map is not asked for more often than this."""


class Routes(Protocol):
    """Which server a command goes to: the only one, or the one that has the key's slot."""

    async def call(self, key: bytes, payload: bytes, reading: Reading | None = None) -> Reply: ...

    def begin(self, key: bytes, payload: bytes) -> asyncio.Future[Reply] | None:
        """Send a command at once; None where there is no connection. Where its reply is an error, `call` may know
        another node.
        """
        ...

    def close(self) -> None: ...


def routes(address: Address, timeout_seconds: float, near: NearCache | None = None) -> Routes:
    """To be called on the event loop that will use it."""
    return Cluster(address, timeout_seconds, near) if address.cluster else Single(address, timeout_seconds, near)


class Single:
    """One server."""

    def __init__(self, address: Address, timeout_seconds: float, near: NearCache | None = None) -> None:
        self.link = Link(address.nodes[0], address, timeout_seconds, near)

    async def call(self, key: bytes, payload: bytes, reading: Reading | None = None) -> Reply:
        return await self.link.call(payload, reading)

    def begin(self, key: bytes, payload: bytes) -> asyncio.Future[Reply] | None:
        return self.link.begin(payload)

    def close(self) -> None:
        self.link.close()


class Cluster:
    """A Redis Cluster: a link a node, made when needed. Follows MOVED and ASK once; a failed node makes it look for
    changes.
    """

    def __init__(self, address: Address, timeout_seconds: float, near: NearCache | None = None) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._near = near
        self._links: dict[Node, Link] = {}
        self._slots: list[Node | None] = [None] * SLOTS
        self._refreshing: asyncio.Task[None] | None = None
        self._refresh_at = 0.0

    async def call(self, key: bytes, payload: bytes, reading: Reading | None = None) -> Reply:
        slot = slot_of(key)
        node = self._slots[slot]
        if node is None:
            await self._refreshed()
            node = self._slots[slot]
            if node is None:
                raise StoreUnavailable(f"no node of the online store's cluster serves slot {slot}")
        try:
            reply = await self._link(node).call(payload, reading)
        except StoreUnavailable:
            self._refresh()
            raise
        if isinstance(reply, hiredis.ReplyError):
            redirected = moved_to(reply, node)
            if redirected is not None:
                if str(reply).startswith("ASK "):
                    if reading is not None:
                        reading.session = (
                            NO_SESSION  # the slot may yet stay where it is, and that node tells nobody here
                        )
                    return await self._link(redirected[1]).call_asking(payload)
                self._slots[slot] = redirected[1]
                self._link(node).forget()
                self._refresh()
                return await self._link(redirected[1]).call(payload, reading)
        return reply

    def begin(self, key: bytes, payload: bytes) -> asyncio.Future[Reply] | None:
        node = self._slots[slot_of(key)]
        return None if node is None else self._link(node).begin(payload)

    def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
        for link in self._links.values():
            link.close()

    def _link(self, node: Node) -> Link:
        link = self._links.get(node)
        if link is None:
            link = self._links[node] = Link(node, self._address, self._timeout_seconds, self._near)
        return link

    def _refresh(self) -> asyncio.Task[None] | None:
        loop = asyncio.get_running_loop()
        if (self._refreshing is None or self._refreshing.done()) and loop.time() >= self._refresh_at:
            self._refresh_at = loop.time() + REFRESH_SECONDS
            self._refreshing = loop.create_task(self._ask_for_slots())
        return self._refreshing

    async def _refreshed(self) -> None:
        refreshing = self._refresh()
        if refreshing is not None and not refreshing.done():
            # Shielded: a request that gives up must not stop what the others wait for.
            try:
                await asyncio.wait_for(asyncio.shield(refreshing), self._timeout_seconds)
            except TimeoutError:
                raise StoreUnavailable("the online store's cluster did not tell its nodes in time") from None

    async def _ask_for_slots(self) -> None:
        nodes = dict.fromkeys([*self._address.nodes, *(node for node in self._slots if node is not None)])
        for node in nodes:
            try:
                reply = await self._link(node).call(command("CLUSTER", "SLOTS"))
            except StoreUnavailable:
                continue
            if not isinstance(reply, list):
                continue
            slots: list[Node | None] = [None] * SLOTS
            for first, last, master, *_ in reply:
                serving = (master[0].decode() if master[0] else node[0], int(master[1]))
                slots[first : last + 1] = [serving] * (last + 1 - first)
            if self._near is not None and self._slots != slots:
                self._forget_what_moved(slots)
            self._slots = slots
            gone = set(self._links) - set(slots) - set(self._address.nodes)
            for other in gone:
                self._links.pop(other).close()
            return

    def _forget_what_moved(self, slots: list[Node | None]) -> None:
        """A node that has lost a slot may be told of its changes no more; then neither are we."""
        for node in {
            before for before, after in zip(self._slots, slots, strict=True) if before is not None and before != after
        }:
            if node in self._links:
                self._links[node].forget()


def slot_of(key: bytes) -> int:
    """CRC16 (XMODEM) of the key, or of what stands between its first braces; Redis Cluster specification."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS
