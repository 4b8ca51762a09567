"""The Redis ledger: a customer's history is one key, and a take one script that the server runs in one step.

    contacts:{entity key}   the history, as it stands in `contacts`; in the slot of the customer's features; expires
    after the horizon recent:{entity key}     what is new of a unit, see `recent`; expires, unless it holds a consent, a
    link or an assignment budgets:{project}       a hash of all budgets: offer's key -> record, as in `budgets`

A call is one round trip, without retries: a take whose reply is lost may have been done or not, and has to be treated
as refused. Notes, links, and takes that must make room, read, compute here, and put the result back if nothing has
changed meanwhile.

The server must not evict keys (`maxmemory-policy noeviction`), or limits are forgotten with them; the same holds for a
restart without persistence, and, for what was not replicated yet, for a failover.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import hiredis

from features.columns.rows import StoreUnavailable
from features.common.moments import Seconds
from features.contact_history.limits import ContactPolicy
from features.contact_history.takes import GRANTED, ContactEvent, Take, TakeResult
from features.contact_history.updates import merged, noted, taken
from features.ledger.budgets import FELL, BudgetBound, Fell, Moment, asked
from features.ledger.recent import Heard, KeptArm, Known
from features.ledger.recent_updates import (
    UnitChange,
    UnitState,
    emptied,
    is_moved,
    joined,
    linked,
    settled,
    taken_in,
    trimmed,
)
from features.ledger.redis_records import expiry_ms, good, history_of, stored_of
from features.ledger.redis_scripts import BUDGETS, TAKE
from features.ledger.redis_server import LedgerServer
from features.redis_store.address import command

T = TypeVar("T")

ROUNDS_MAX = 16
"""How often a history is read again because it changed before it could be put back; each time somebody else's change
was done.
"""
_NUMBERS = struct.Struct("<5d")


class RedisLedger(LedgerServer):
    """See `Ledger`. Belongs to one event loop at a time.

    Args:
        url: see `redis_store/address.py`.
        timeout_ms: how long one round trip may take.
        project: part of every key.
        shared: gives the routes of whoever reads from the same server, so that both share its connection, and two calls
            in the same turn of the loop one packet; None: a connection of its own.

    Attributes:
        dropped: recent events that had no room, since it was opened.
    """

    def read_now(self, customer_id: str) -> bytes | None:
        """None: a round trip is needed."""
        return None

    async def read(self, customer_id: str) -> bytes:
        key, payload = self.read_request(customer_id)
        return history_of(await self._reached().call(key, payload))

    def read_request(self, customer_id: str) -> tuple[bytes, bytes]:
        """Return key and command of a read, for `Routes.call`, so that it can travel with another read.

        `history_of` makes the history of its reply.
        """
        key = self._key(customer_id)
        return key, command("GET", key)

    def take_now(self, take: Take) -> TakeResult | None:
        """None: a round trip is needed."""
        return None

    async def take(self, take: Take, history: bytes | None = None) -> TakeResult:
        """With the history that was read, all is computed here, and written if it is still the same: a tenth of the
        script's work.
        """
        if history is not None:
            answer, after = taken(history, take)
            if after is history or await self._replace(take.customer_id, history, after, take.policy):
                return answer
        policy = take.policy
        entries, choices = take.packed()
        numbers = _NUMBERS.pack(
            take.now, policy.hold_seconds, policy.horizon_seconds, policy.contacts_max, expiry_ms(policy)
        )
        reply = await self._run(TAKE, self._key(take.customer_id), numbers, policy.packed, entries, choices)
        if reply == 0:
            return await self._change(take.customer_id, policy, lambda history: taken(history, take))
        if not isinstance(reply, list) or len(reply) != len(take.contacts):
            raise StoreUnavailable("the ledger answered what was not asked")
        return TakeResult(tuple([max(int(fell), GRANTED) for fell in reply]))

    async def note(
        self, customer_id: str, policy: ContactPolicy, events: Sequence[ContactEvent], now: Seconds
    ) -> list[bool]:
        def change(history: bytes) -> tuple[list[bool], bytes]:
            after, new = noted(history, policy, events, now)
            return new, after

        return await self._change(customer_id, policy, change)

    async def link(self, source_id: str, target_id: str, policy: ContactPolicy, now: Seconds) -> None:
        """Add the source to the target, then delete it if it is unchanged; in between, its contacts count for both."""
        if source_id == target_id:
            return
        for _ in range(ROUNDS_MAX):
            moved = await self.read(source_id)
            if not moved:
                return
            await self._change(target_id, policy, lambda history: (None, merged(history, moved, policy, now)))  # noqa: B023 - awaited here
            if await self._replace(source_id, moved, b"", policy):
                return
        raise StoreUnavailable(
            f"the history of the linked id changed {ROUNDS_MAX} times while it was moved; link again"
        )

    def look_now(self, unit: str) -> Known | None:
        """None: a round trip is needed."""
        return None

    async def look(self, unit: str) -> Known:
        return await self._followed(unit, (await self._stored(unit)).state)

    def begin_look(self, unit: str) -> asyncio.Future[object] | None:
        return self._reached().begin(*self._look_request(unit))

    async def end_look(self, unit: str, begun: asyncio.Future[object]) -> Known:
        reply = await begun
        # An error may name another node of a cluster, which a look follows.
        return await (
            self.look(unit) if isinstance(reply, hiredis.ReplyError) else self._followed(unit, stored_of(reply).state)
        )

    async def hear(self, heard: Sequence[Heard], policy: ContactPolicy, now: Seconds) -> list[bool]:
        """Unit by unit; what was heard before a failure stays."""
        by_unit: dict[str, list[int]] = {}
        for at, one in enumerate(heard):
            by_unit.setdefault(one.unit, []).append(at)
        new = [False] * len(heard)
        for unit, places in by_unit.items():
            # Links first: the rest of the call goes to the customer then, wherever it stood.
            for at in places:
                if heard[at].identify:
                    new[at] = await self._identify(unit, heard[at], policy, now)
            rest = [at for at in places if not heard[at].identify]
            if rest:
                found = await self._hear(unit, [heard[at] for at in rest], policy, now)
                for at, fresh in zip(rest, found, strict=True):
                    new[at] = fresh
        return new

    async def trim(self, unit: str, moment: int) -> None:
        def change(state: UnitState) -> UnitChange:
            return UnitChange(UnitState(state.contacts, trimmed(state.recent, moment)), [], 0)

        await self._alter(unit, None, change)

    async def settle(
        self, unit: str, wanted: Mapping[str, KeptArm], over: Mapping[str, KeptArm]
    ) -> Mapping[str, KeptArm]:
        """Read, and put back where nothing has changed meanwhile; two round trips, for a unit that is new to an
        experiment.
        """
        kept: Mapping[str, KeptArm] = {}

        def change(state: UnitState) -> UnitChange | None:
            nonlocal kept
            if state.recent.linked:
                return None
            recent = settled(state.recent, wanted, over)
            kept = recent.kept
            return UnitChange(UnitState(state.contacts, recent), [], 0)

        done = await self._alter(unit, None, change)
        if isinstance(done, UnitState):
            await self._alter(done.recent.linked, None, change)
        return kept

    async def forget(self, customer_id: str) -> None:
        key, recent = self._key(customer_id), self._recent_key(customer_id)
        good(await self._reached().call(key, command("DEL", key, recent)))

    def take_budgets_now(self, budgets: Sequence[BudgetBound], moment: Moment) -> list[Fell] | None:
        """None: a round trip is needed."""
        return None

    async def take_budgets(self, budgets: Sequence[BudgetBound], moment: Moment) -> list[Fell]:
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

    def sweep(self, horizon_seconds: float, now: Seconds) -> int:
        """Nothing: keys expire."""
        return 0

    async def _settle(self, what: bytes, offers: Sequence[int], moment: Moment) -> None:
        await self._run(BUDGETS, self._budgets, what, moment.pack(), asked([BudgetBound(offer) for offer in offers]))

    async def _change(self, customer_id: str, policy: ContactPolicy, change: Callable[[bytes], tuple[T, bytes]]) -> T:
        for _ in range(ROUNDS_MAX):
            history = await self.read(customer_id)
            answer, after = change(history)
            if after == history or await self._replace(customer_id, history, after, policy):
                return answer
        raise StoreUnavailable(f"the history changed {ROUNDS_MAX} times while it was written to")

    async def _followed(self, unit: str, state: UnitState) -> Known:
        """Return what a look gives; of a linked unit the customer's, with a second round trip."""
        if state.recent.linked:
            unit = state.recent.linked
            state = (await self._stored(unit)).state
        return Known(unit, state.contacts, state.recent)

    async def _hear(self, unit: str, heard: list[Heard], policy: ContactPolicy, now: Seconds) -> list[bool]:
        """Return what was heard of one unit; `linked` as it turns out."""

        def change(state: UnitState) -> UnitChange | None:
            return None if state.recent.linked else taken_in(state, heard, policy, now)

        done = await self._alter(unit, policy, change)
        if isinstance(done, UnitChange):
            return done.new
        link = done.recent
        await self._move(unit, policy, now)
        since = link.linked_received
        return (await self._surely(link.linked, policy, lambda state: taken_in(state, heard, policy, now, since))).new

    async def _identify(self, unit: str, one: Heard, policy: ContactPolicy, now: Seconds) -> bool:
        """Write the link, which only one caller can make; then do the move, which any caller may finish."""

        def change(state: UnitState) -> UnitChange | None:
            return None if state.recent.linked else UnitChange(linked(state, one.identify, one.received), [True], 0)

        done = await self._alter(unit, policy, change)
        await self._move(unit, policy, now)
        return isinstance(done, UnitChange)

    async def _move(self, unit: str, policy: ContactPolicy, now: Seconds) -> None:
        """Bring what a linked unit still has to its customer. What is moved twice counts once; it goes only as it was
        when it was moved.
        """
        for _ in range(ROUNDS_MAX):
            stored = await self._stored(unit)
            moved = stored.state
            if is_moved(moved):
                return
            await self._surely(moved.recent.linked, policy, lambda customer: joined(customer, moved, policy, now))  # noqa: B023 - awaited here
            if await self._replace_both(unit, stored, emptied(moved), policy):
                return
        raise StoreUnavailable(
            f"the history of the linked id changed {ROUNDS_MAX} times while it was moved; link again"
        )

    async def _surely(self, unit: str, policy: ContactPolicy, change: Callable[[UnitState], UnitChange]) -> UnitChange:
        done = await self._alter(unit, policy, change)
        assert isinstance(done, UnitChange)
        return done

    async def _alter(
        self, unit: str, policy: ContactPolicy | None, change: Callable[[UnitState], UnitChange | None]
    ) -> UnitChange | UnitState:
        """Change both records of a unit by compare and set; the state as it is where the change says None."""
        for _ in range(ROUNDS_MAX):
            stored = await self._stored(unit)
            done = change(stored.state)
            if done is None:
                return stored.state
            if done.state == stored.state or await self._replace_both(unit, stored, done.state, policy):
                self.dropped += done.dropped
                return done
        raise StoreUnavailable(f"the history changed {ROUNDS_MAX} times while it was written to")
