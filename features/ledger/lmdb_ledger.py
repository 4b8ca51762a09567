"""The embedded ledger: contact histories and budgets in an LMDB environment of their own, one short write transaction a
take.

    <path>/LEDGER      says that there was a ledger here
    <path>/data.mdb    b"c" + hash of the unit -> history, crc32;  b"t" + the same -> what is new of it (`recent`),
    crc32;
                       b"b" + offer's key -> budget record, crc32
    <path>/lock.mdb

It lies apart from the feature store, whose generations are rebuilt and swapped, and whose batches would keep takes
waiting for LMDB's one writer. A writer that is killed gives the lock back (robust mutexes), and its half transaction
was never there.

Commits do not wait for the disk: a commit is in the page cache, which outlives every process. `sync`, called once a
second, makes it durable. A power cut or a crash of the kernel costs what came after the last sync; at worst, when the
disk wrote the pages since then in another order, single histories, which their checksums tell, or the file, which then
does not open. Both are refused until a person decides: the ledger does not begin anew by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import lmdb

from features.common.moments import Seconds
from features.common.types import ANONYMOUS
from features.contact_history.history import ENTRY_BYTES, entries
from features.contact_history.limits import ContactPolicy
from features.contact_history.takes import ContactEvent, Take, TakeResult
from features.contact_history.updates import merged, noted, taken
from features.ledger.budgets import BudgetBound, BudgetRecord, Fell, Moment, asked
from features.ledger.lmdb_file import LedgerFile
from features.ledger.lmdb_records import (
    CUSTOMERS,
    RECENT,
    budget_of,
    checked,
    customer_key,
    hash_of,
    history_of,
    offer_key,
    put_record,
    put_state,
    recent_of,
    state_of,
)
from features.ledger.recent import NOTHING, Heard, KeptArm, Known, encode
from features.ledger.recent_updates import EventApplication, settled, trimmed

T = TypeVar("T")

SWEEP_RECORDS_MAX = 200
"""Bound on the records that one sweep looks at: takes wait for it."""


class LmdbLedger(LedgerFile):
    """See `Ledger`. Made when its folder is not there; one that is lost while it is in use stays lost.

    Args:
        path: the folder.
        map_bytes, map_bytes_max: first and largest size of the memory map; it doubles as the ledger grows.

    Attributes:
        dropped: recent events that had no room, since it was opened.
    """

    dropped = 0
    _swept = CUSTOMERS

    def read_now(self, customer_id: str) -> bytes:
        """Return the history of a customer, at once."""
        return self._read(lambda transaction: history_of(transaction.get(customer_key(customer_id))))

    async def read(self, customer_id: str) -> bytes:
        return self.read_now(customer_id)

    def take_now(self, take: Take) -> TakeResult:
        """Take contacts in one write transaction."""
        return self._change(take.customer_id, lambda history: taken(history, take))

    async def take(self, take: Take, history: bytes | None = None) -> TakeResult:
        return self.take_now(take)

    async def note(
        self, customer_id: str, policy: ContactPolicy, events: Sequence[ContactEvent], now: Seconds
    ) -> list[bool]:
        def change(history: bytes) -> tuple[list[bool], bytes]:
            after, new = noted(history, policy, events, now)
            return new, after

        return self._change(customer_id, change)

    async def link(self, source_id: str, target_id: str, policy: ContactPolicy, now: Seconds) -> None:
        if source_id == target_id:
            return

        def work(transaction: lmdb.Transaction[bytes]) -> None:
            source, target = customer_key(source_id), customer_key(target_id)
            moved = history_of(transaction.get(source))
            if moved:
                transaction.put(target, checked(merged(history_of(transaction.get(target)), moved, policy, now)))
                transaction.delete(source)

        self._write(work)

    def look_now(self, unit: str) -> Known:
        """Read a unit in one read transaction. Every decision waits for it, and of most units nothing is known: so few
        steps as can be.
        """
        key = hash_of(unit)
        with self._using:
            environment = self._opened()
            try:
                transaction = environment.begin()
                try:
                    recent, history = transaction.get(RECENT + key), transaction.get(CUSTOMERS + key)
                    if recent is None and history is None:
                        return Known(unit, b"", NOTHING)
                    found = recent_of(recent)
                    if not found.linked:
                        return Known(unit, history_of(history), found)
                    key = hash_of(found.linked)
                    return Known(
                        found.linked,
                        history_of(transaction.get(CUSTOMERS + key)),
                        recent_of(transaction.get(RECENT + key)),
                    )
                finally:
                    transaction.abort()
            except (lmdb.Error, OSError) as error:
                raise self._failed("read", error) from error

    async def look(self, unit: str) -> Known:
        return self.look_now(unit)

    def begin_look(self, unit: str) -> None:
        """None: nothing need be waited for."""

    async def end_look(self, unit: str, begun: object) -> Known:
        return self.look_now(unit)

    async def hear(self, heard: Sequence[Heard], policy: ContactPolicy, now: Seconds) -> list[bool]:
        """Apply events in one write transaction."""

        def work(transaction: lmdb.Transaction[bytes]) -> EventApplication:
            hearing = EventApplication(partial(state_of, transaction), policy, now)
            for one in heard:
                hearing.hear(one)
            for unit, before, after in hearing.changed():
                put_state(transaction, unit, before, after)
            return hearing

        done = self._write(work)
        self.dropped += done.dropped
        return done.new

    async def trim(self, unit: str, moment: int) -> None:
        key = RECENT + hash_of(unit)
        if not self._read(lambda transaction: transaction.get(key)):
            return  # no writer's lock where there is nothing to trim

        def work(transaction: lmdb.Transaction[bytes]) -> None:
            before = recent_of(transaction.get(key))
            after = trimmed(before, moment)
            if after is not before:
                put_record(transaction, key, encode(after))

        self._write(work)

    async def settle(
        self, unit: str, wanted: Mapping[str, KeptArm], over: Mapping[str, KeptArm]
    ) -> Mapping[str, KeptArm]:
        """Write sticky assignments in one write transaction."""

        def work(transaction: lmdb.Transaction[bytes]) -> Mapping[str, KeptArm]:
            key = RECENT + hash_of(unit)
            recent = recent_of(transaction.get(key))
            if recent.linked:
                key = RECENT + hash_of(recent.linked)
                recent = recent_of(transaction.get(key))
            after = settled(recent, wanted, over)
            if after is not recent:
                put_record(transaction, key, encode(after))
            return after.kept

        return self._write(work)

    async def forget(self, customer_id: str) -> None:
        def work(transaction: lmdb.Transaction[bytes]) -> None:
            for kind in (CUSTOMERS, RECENT):
                transaction.delete(kind + hash_of(customer_id))

        self._write(work)

    def take_budgets_now(self, budgets: Sequence[BudgetBound], moment: Moment) -> list[Fell]:
        """Reserve shows in one write transaction."""
        asked(budgets)
        moment.pack()

        def work(transaction: lmdb.Transaction[bytes]) -> list[Fell]:
            records = [budget_of(transaction, budget.offer) for budget in budgets]
            for record in records:
                record.release(moment)
            fell = [record.fell(budget, moment.day) for record, budget in zip(records, budgets, strict=True)]
            if not any(fell):
                for record, budget in zip(records, budgets, strict=True):
                    record.reserve(moment)
                    transaction.put(offer_key(budget.offer), checked(record.pack()))
            return fell

        return self._write(work)

    async def take_budgets(self, budgets: Sequence[BudgetBound], moment: Moment) -> list[Fell]:
        return self.take_budgets_now(budgets, moment)

    async def give_back(self, offers: Sequence[int], moment: Moment) -> None:
        self._settle(offers, moment, BudgetRecord.give_back)

    async def confirm(self, offers: Sequence[int], moment: Moment) -> None:
        self._settle(offers, moment, BudgetRecord.confirm)

    def sweep(self, horizon_seconds: float, now: Seconds) -> int:
        """Look at the next `SWEEP_RECORDS_MAX` histories in the order of their keys."""

        def work(transaction: lmdb.Transaction[bytes]) -> int:
            found: list[bytes] = []
            with transaction.cursor() as cursor:
                more = cursor.set_range(self._swept)
                for _ in range(SWEEP_RECORDS_MAX):
                    if not more or not cursor.key().startswith(CUSTOMERS):
                        self._swept = CUSTOMERS
                        break
                    self._swept = cursor.key()
                    history = cursor.value()[:-4]
                    if len(history) % ENTRY_BYTES == 0 and not (entries(history)["time"] > now - horizon_seconds).any():
                        found.append(self._swept)
                    more = cursor.next()
            for key in found:
                transaction.delete(key)
            return len(found)

        return self._write(work)

    def _settle(self, offers: Sequence[int], moment: Moment, how: Callable[[BudgetRecord, Moment], None]) -> None:
        moment.pack()

        def work(transaction: lmdb.Transaction[bytes]) -> None:
            for offer in offers:
                record = budget_of(transaction, offer)
                how(record, moment)
                transaction.put(offer_key(offer), checked(record.pack()))

        self._write(work)

    def _change(self, customer_id: str, change: Callable[[bytes], tuple[T, bytes]]) -> T:
        def work(transaction: lmdb.Transaction[bytes]) -> T:
            key = customer_key(customer_id)
            if customer_id.startswith(ANONYMOUS) and (linked := recent_of(transaction.get(RECENT + key[1:])).linked):
                key = customer_key(linked)  # since it was looked at
            history = history_of(transaction.get(key))
            answer, after = change(history)
            if after is not history:
                transaction.put(key, checked(after))
            return answer

        return self._write(work)
