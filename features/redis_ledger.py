"""The Redis ledger: a customer's history is one key, and a take one script that the server runs in one step.

    contacts:{entity key}   the history, as it stands in `contacts`; in the slot of the customer's features; expires after the horizon
    budgets:{project}       a hash of all budgets: offer's key -> record, as in `budgets`

A call is one round trip, without retries: a take whose reply is lost may have been done or not, and has to be treated as refused.
Notes, links, and takes that must make room, read, compute here, and put the result back if nothing has changed meanwhile.

The server must not evict keys (`maxmemory-policy noeviction`), or limits are forgotten with them; the same holds for a restart
without persistence, and, for what was not replicated yet, for a failover.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

import hiredis

from features.budgets import FELL, Budget, Fell, Moment, asked
from features.contact_changes import merged, noted, taken
from features.contacts import ENTRY_BYTES, GRANTED, ContactPolicy, Event, Take, Taken
from features.feast_wire import entity_key
from features.ledger_scripts import BUDGETS, REPLACE, TAKE, Script
from features.online import CUSTOMER_JOIN_KEY, StoreUnavailable
from features.redis_address import Address, command
from features.redis_routes import Routes, routes

T = TypeVar("T")

ROUNDS_MAX = 16
"""How often a history is read again because it changed before it could be put back; each time somebody else's change was done."""
_NUMBERS = struct.Struct("<5d")


class RedisLedger:
    """See `Ledger`. Belongs to one event loop at a time.

    Args:
        url: see `redis_address`.
        timeout_ms: how long one round trip may take.
        project: part of every key.
        shared: gives the routes of whoever reads from the same server, so that both share its connection, and two calls in the same
            turn of the loop one packet; None: a connection of its own.
    """

    def __init__(self, url: str, timeout_ms: float, project: str, shared: Callable[[], Routes] | None = None) -> None:
        self._address = Address.parse(url)
        self._timeout_seconds = timeout_ms / 1_000
        self._project = project
        self._budgets = f"budgets:{{{project}}}".encode()
        self._shared = shared
        self._routes: Routes | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def read_now(self, customer_id: str) -> bytes | None:
        """None: a round trip is needed."""
        return None

    async def read(self, customer_id: str) -> bytes:
        key, payload = self.read_request(customer_id)
        return history_of(await self._reached().call(key, payload))

    def begin_read(self, customer_id: str) -> asyncio.Future[object] | None:
        return self._reached().begin(*self.read_request(customer_id))

    async def end_read(self, customer_id: str, begun: asyncio.Future[object]) -> bytes:
        reply = await begun
        # An error may name another node of a cluster, which a read follows.
        return await self.read(customer_id) if isinstance(reply, hiredis.ReplyError) else history_of(reply)

    def read_request(self, customer_id: str) -> tuple[bytes, bytes]:
        """Key and command of a read, for `Routes.call`, so that it can travel with another; `history_of` its reply is the history."""
        key = self._key(customer_id)
        return key, command("GET", key)

    def take_now(self, take: Take) -> Taken | None:
        """None: a round trip is needed."""
        return None

    async def take(self, take: Take, history: bytes | None = None) -> Taken:
        """With the history that was read, all is computed here, and written if it is still the same: a tenth of the script's work."""
        if history is not None:
            answer, after = taken(history, take)
            if after is history or await self._replace(take.customer_id, history, after, take.policy):
                return answer
        policy = take.policy
        entries, choices = take.packed()
        numbers = _NUMBERS.pack(take.now, policy.hold_seconds, policy.horizon_seconds, policy.contacts_max, _expiry(policy))
        reply = await self._run(TAKE, self._key(take.customer_id), numbers, policy.packed, entries, choices)
        if reply == 0:
            return await self._change(take.customer_id, policy, lambda history: taken(history, take))
        if not isinstance(reply, list) or len(reply) != len(take.contacts):
            raise StoreUnavailable("the ledger answered what was not asked")
        return Taken(tuple([max(int(fell), GRANTED) for fell in reply]))

    async def note(self, customer_id: str, policy: ContactPolicy, events: Sequence[Event], now: float) -> list[bool]:
        def change(history: bytes) -> tuple[list[bool], bytes]:
            after, new = noted(history, policy, events, now)
            return new, after

        return await self._change(customer_id, policy, change)

    async def link(self, source_id: str, target_id: str, policy: ContactPolicy, now: float) -> None:
        """The source goes only as it was when it was added to the target; in between, its contacts count for both."""
        if source_id == target_id:
            return
        for _ in range(ROUNDS_MAX):
            moved = await self.read(source_id)
            if not moved:
                return
            await self._change(target_id, policy, lambda history: (None, merged(history, moved, policy, now)))  # noqa: B023 - awaited here
            if await self._replace(source_id, moved, b"", policy):
                return
        raise StoreUnavailable(f"the history of the linked id changed {ROUNDS_MAX} times while it was moved; link again")

    async def forget(self, customer_id: str) -> None:
        key = self._key(customer_id)
        _good(await self._reached().call(key, command("DEL", key)))

    def take_budgets_now(self, budgets: Sequence[Budget], moment: Moment) -> list[Fell] | None:
        """None: a round trip is needed."""
        return None

    async def take_budgets(self, budgets: Sequence[Budget], moment: Moment) -> list[Fell]:
        reply = await self._run(BUDGETS, self._budgets, b"take", moment.pack(), asked(budgets))
        if not isinstance(reply, list) or len(reply) != len(budgets):
            raise StoreUnavailable("the ledger answered what was not asked")
        return [FELL[int(fell)] for fell in reply]

    async def give_back(self, offers: Sequence[int], moment: Moment) -> None:
        await self._settle(b"give_back", offers, moment)

    async def confirm(self, offers: Sequence[int], moment: Moment) -> None:
        await self._settle(b"confirm", offers, moment)

    def sync(self) -> None:
        """Nothing: how durable it is, the server says."""

    def sweep(self, horizon_seconds: float, now: float) -> int:
        """Nothing: keys expire."""
        return 0

    def close(self) -> None:
        """Ends its own connection; from any thread."""
        found, self._routes = self._routes, None
        if found is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(found.close)

    def _key(self, customer_id: str) -> bytes:
        # Feast deletes what ends with a project's name: this ends with a brace.
        return b"contacts:{%b}" % entity_key(CUSTOMER_JOIN_KEY, customer_id, self._project)

    def _reached(self) -> Routes:
        if self._shared is not None:
            return self._shared()
        loop = asyncio.get_running_loop()
        if self._routes is None or self._loop is not loop:
            self._loop, self._routes = loop, routes(self._address, self._timeout_seconds)
        return self._routes

    async def _run(self, script: Script, key: bytes, *arguments: bytes) -> object:
        """A script by its digest; with its text where a server does not know it yet."""
        found = self._reached()
        reply = await found.call(key, command("EVALSHA", script.digest, 1, key, *arguments))
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            reply = await found.call(key, command("EVAL", script.text, 1, key, *arguments))
        return _good(reply)

    async def _settle(self, what: bytes, offers: Sequence[int], moment: Moment) -> None:
        await self._run(BUDGETS, self._budgets, what, moment.pack(), asked([Budget(offer) for offer in offers]))

    async def _change(self, customer_id: str, policy: ContactPolicy, change: Callable[[bytes], tuple[T, bytes]]) -> T:
        for _ in range(ROUNDS_MAX):
            history = await self.read(customer_id)
            answer, after = change(history)
            if after == history or await self._replace(customer_id, history, after, policy):
                return answer
        raise StoreUnavailable(f"the history changed {ROUNDS_MAX} times while it was written to")

    async def _replace(self, customer_id: str, history: bytes, after: bytes, policy: ContactPolicy) -> bool:
        expiry = b"%d" % _expiry(policy)
        return await self._run(REPLACE, self._key(customer_id), history, after, expiry) == 1


def history_of(reply: object) -> bytes:
    """The history that a server answered to a `read_request`.

    Raises:
        StoreUnavailable: when it is an error, or no history.
    """
    history = _good(reply)
    if history is None:
        return b""
    if not isinstance(history, bytes) or len(history) % ENTRY_BYTES:
        raise StoreUnavailable("a history of the ledger is damaged; `forget` the customer to begin it anew")
    return history


def _good(reply: object) -> object:
    if isinstance(reply, hiredis.ReplyError):
        raise StoreUnavailable(f"the ledger answered: {reply}")
    return reply


def _expiry(policy: ContactPolicy) -> int:
    """Milliseconds, a minute longer than anything is looked back at."""
    return int(policy.horizon_seconds * 1_000) + 60_000
