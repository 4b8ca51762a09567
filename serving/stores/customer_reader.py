"""Reading a customer: the row of the online store and what the ledger knows, in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from features.columns.rows import OnlineEngine, OnlineRow, StoreUnavailable
from features.common.moments import Micros, in_seconds
from features.common.types import DecisionRequest
from features.ledger.recent import Known
from serving.state.customer import CustomerState, customer_state
from serving.state.snapshot import Snapshot
from serving.stores.deadline import Deadline
from serving.stores.global_row import GlobalRow
from serving.stores.ledger_access import LedgerAccess


class CustomerReader:
    """Reads customers for one worker. All methods belong to the event loop's thread.

    Args:
        clock: gives the moment where a caller gives none.
    """

    def __init__(
        self,
        engine: OnlineEngine,
        global_row: GlobalRow,
        access: LedgerAccess,
        deadline: Deadline,
        clock: Callable[[], Micros],
    ) -> None:
        self._engine, self._global_row, self._access = engine, global_row, access
        self._deadline, self._clock = deadline, clock

    async def row(self, customer_id: str) -> OnlineRow | None:
        """Return the row of a customer; None when the store does not answer in time, or may have been emptied."""
        try:
            row = self._engine.read_now(customer_id)
            if row is None:
                async with asyncio.timeout(self._deadline.seconds):
                    row = await self._engine.read(customer_id)
        except (StoreUnavailable, TimeoutError):
            self._global_row.doubt()
            return None
        return self._global_row.met(customer_id, row)

    def known_now(self, unit: str, snapshot: Snapshot, now: Micros) -> CustomerState | None:
        """Return what `known` would, where both stores answer at once; None where something must be waited for, or
        fails, and `known` is to be asked.

        Args:
            now: the moment of the decision.
        """
        if snapshot.experiment_states.sticky:
            return None
        try:
            known = self._access.ledger.look_now(unit)
            row = None if known is None else self._engine.read_now(known.unit)
        except StoreUnavailable:
            return None
        if known is None or row is None:
            return None
        return customer_state(self._global_row.met(known.unit, row), known, unit, snapshot.fold, now)

    async def known(
        self, unit: str, snapshot: Snapshot, now: Micros | None = None, request: DecisionRequest | None = None
    ) -> CustomerState:
        """Return what the stores know about a unit, in one round trip, with recent events folded onto the row.

        The ledger is read no later than the row: an event leaves it only some time after the row holds the event.

        Args:
            now: the moment of the decision; the clock's own when absent.
            request: whose sticky assignments are wanted too, under all units that it names; None leaves them out.
        """
        now, states = self._clock() if now is None else now, snapshot.experiment_states
        if request is None or not states.sticky:
            row, known = await self._read(unit)
            return customer_state(row, known, unit, snapshot.fold, now)
        others = states.sticky_units(request)
        reads = asyncio.gather(*(self._read_ledger(other) for other in others))
        row, known = await self._read(unit)
        known_others = await reads
        if account := states.account_unit(row, in_seconds(now)):
            others, known_others = [*others, account], [*known_others, await self._read_ledger(account)]
        customer = customer_state(row, known, unit, snapshot.fold, now)
        answered = [other for other in known_others if other is not None]
        if known is None or len(answered) < len(known_others):
            return msgspec.structs.replace(customer, sticky=None)
        stored = {other: found.recent.kept for other, found in zip(others, answered, strict=True)}
        stored |= {known.unit: known.recent.kept, unit: known.recent.kept}
        return msgspec.structs.replace(customer, sticky=states.sticky_arms(stored, known.unit, request))

    async def _read(self, unit: str) -> tuple[OnlineRow | None, Known | None]:
        """Return row and ledger, read in one round trip; None for what does not answer in time."""
        ledger = self._access.ledger
        try:
            known = ledger.look_now(unit)
        except StoreUnavailable as error:
            self._access.complain(error)
            return await self.row(unit), None
        if known is not None:
            return await self.row(known.unit), known
        # Both are on their way in the same turn of the loop; two tasks would cost 30 us more than that.
        begun = ledger.begin_look(unit)
        if begun is None:
            known, row = await asyncio.gather(self._in_time(ledger.look(unit)), self.row(unit))
        else:
            try:
                row = await self.row(unit)
            except BaseException:
                begun.cancel()
                raise
            known = await self._in_time(ledger.end_look(unit, begun))
        if known is not None and known.unit != unit:
            row = await self.row(known.unit)
        return row, known

    async def _read_ledger(self, unit: str) -> Known | None:
        """Return what the ledger knows of a unit whose row is not wanted; None when it does not answer in time."""
        ledger = self._access.ledger
        try:
            known = ledger.look_now(unit)
        except StoreUnavailable as error:
            self._access.complain(error)
            return None
        return known or await self._in_time(ledger.look(unit))

    async def _in_time(self, reading: Awaitable[Known]) -> Known | None:
        """Return what the ledger answers; None when that takes too long, or fails."""
        try:
            async with asyncio.timeout(self._deadline.seconds):
                return await reading
        except (StoreUnavailable, TimeoutError) as error:
            self._access.complain(error)
            return None
