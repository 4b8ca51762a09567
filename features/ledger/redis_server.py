"""The server of the Redis ledger: keys of a customer, scripts that run there, records put back by compare and set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import hiredis

from features.columns.rows import CUSTOMER_JOIN_KEY
from features.contact_history.limits import ContactPolicy
from features.ledger.recent import encode
from features.ledger.recent_updates import UnitState
from features.ledger.redis_records import Stored, expiry_ms, good, stored_of
from features.ledger.redis_scripts import REPLACE, REPLACE_BOTH, Script
from features.redis_store.address import Address, command
from features.redis_store.feast_format import entity_key
from features.redis_store.routing import Routes, routes

RECENT_SECONDS = 45 * 86_400
"""How long the events of a unit are kept that nothing trims: longer than an event may be late."""


class LedgerServer:
    """Keys, scripts and replies of the ledger on one server or cluster. Belongs to one event loop at a time.

    See `RedisLedger`, which is this with what a ledger can do.
    """

    def __init__(self, url: str, timeout_ms: float, project: str, shared: Callable[[], Routes] | None = None) -> None:
        self._address = Address.parse(url)
        self._timeout_seconds = timeout_ms / 1_000
        self._project = project
        self._budgets = f"budgets:{{{project}}}".encode()
        self._shared = shared
        self.dropped = 0
        self._routes: Routes | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def close(self) -> None:
        """Close its own connection; from any thread."""
        found, self._routes = self._routes, None
        if found is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(found.close)

    def _key(self, customer_id: str) -> bytes:
        # Feast deletes what ends with a project's name: this ends with a brace.
        return b"contacts:{%b}" % entity_key(CUSTOMER_JOIN_KEY, customer_id, self._project)

    def _recent_key(self, unit: str) -> bytes:
        return b"recent:{%b}" % entity_key(CUSTOMER_JOIN_KEY, unit, self._project)

    def _reached(self) -> Routes:
        if self._shared is not None:
            return self._shared()
        loop = asyncio.get_running_loop()
        if self._routes is None or self._loop is not loop:
            self._loop, self._routes = loop, routes(self._address, self._timeout_seconds)
        return self._routes

    async def _run(self, script: Script, key: bytes, *arguments: bytes) -> object:
        return await self._run_on(script, (key,), *arguments)

    async def _run_on(self, script: Script, keys: tuple[bytes, ...], *arguments: bytes) -> object:
        """Return a script by its digest; with its text where a server does not know it yet."""
        found = self._reached()
        reply = await found.call(keys[0], command("EVALSHA", script.digest, len(keys), *keys, *arguments))
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            reply = await found.call(keys[0], command("EVAL", script.text, len(keys), *keys, *arguments))
        return good(reply)

    def _look_request(self, unit: str) -> tuple[bytes, bytes]:
        key = self._key(unit)
        return key, command("MGET", key, self._recent_key(unit))

    async def _stored(self, unit: str) -> Stored:
        return stored_of(await self._reached().call(*self._look_request(unit)))

    async def _replace_both(self, unit: str, before: Stored, after: UnitState, policy: ContactPolicy | None) -> bool:
        """Without a policy the history stays as it is."""
        recent = after.recent
        record = before.record if recent == before.state.recent else encode(recent)
        lasting = 0 if recent.consent or recent.linked or recent.kept else RECENT_SECONDS * 1_000
        expiry = 0 if policy is None else expiry_ms(policy)
        told = (before.state.contacts, after.contacts, b"%d" % expiry, before.record, record, b"%d" % lasting)
        return await self._run_on(REPLACE_BOTH, (self._key(unit), self._recent_key(unit)), *told) == 1

    async def _replace(self, customer_id: str, history: bytes, after: bytes, policy: ContactPolicy) -> bool:
        expiry = b"%d" % expiry_ms(policy)
        return await self._run(REPLACE, self._key(customer_id), history, after, expiry) == 1
