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

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TypeVar

import lmdb

from features.columns.rows import StoreUnavailable
from features.common.files import write_whole
from features.common.moments import Seconds
from features.common.types import ANONYMOUS
from features.contact_history.history import ENTRY_BYTES, entries
from features.contact_history.limits import ContactPolicy
from features.contact_history.takes import ContactEvent, Take, TakeResult
from features.contact_history.updates import merged, noted, taken
from features.ledger.budgets import BudgetBound, BudgetRecord, Fell, Moment, asked
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
from features.lmdb_store.environment import DATA, MAP_BYTES, MAP_BYTES_MAX, Environment, attach_folder

T = TypeVar("T")

LEDGER = "LEDGER"
CHECK_SECONDS = 0.2
"""How often the path is looked at: a ledger that was deleted or replaced is noticed within this time."""
SWEEP_RECORDS_MAX = 200
"""Bound on the records that one sweep looks at: takes wait for it."""


class LmdbLedger:
    """See `Ledger`. Made when its folder is not there; one that is lost while it is in use stays lost.

    Args:
        path: the folder.
        map_bytes, map_bytes_max: first and largest size of the memory map; it doubles as the ledger grows.

    Attributes:
        dropped: recent events that had no room, since it was opened.
    """

    def __init__(
        self,
        path: Path | str,
        check_seconds: float = CHECK_SECONDS,
        map_bytes: int = MAP_BYTES,
        map_bytes_max: int = MAP_BYTES_MAX,
    ) -> None:
        self.path = Path(path)
        self._check_seconds = check_seconds
        self._map_bytes = map_bytes
        self._map_bytes_max = map_bytes_max
        self._check_at = 0.0
        self._environment: Environment | None = None
        self._bytes_seen = 0
        self._met = False
        self._why = ""
        self._swept = CUSTOMERS
        self.dropped = 0
        # `sync` and `sweep` come from another thread; the map must not grow under a transaction.
        self._using = threading.RLock()

    def read_now(self, customer_id: str) -> bytes:
        """Return the history of a customer, at once."""
        return self._read(lambda transaction: history_of(transaction.get(customer_key(customer_id))))

    async def read(self, customer_id: str) -> bytes:
        return self.read_now(customer_id)

    def take_now(self, take: Take) -> TakeResult:
        """One write transaction."""
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
        """One read transaction. Every decision waits for it, and of most units nothing is known: so few steps as can
        be.
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
        """One write transaction."""

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
        """One write transaction."""

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
        """One write transaction."""
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

    def sync(self) -> None:
        """Makes what was taken durable, and the places of dead readers free."""
        try:
            with self._using:
                self._opened()
                environment = attach_folder(
                    self.path.resolve(), self._map_bytes, sync=False
                )  # held: the loop may leave it meanwhile
            try:
                environment.env.sync(True)  # takes go on beside it
                environment.env.reader_check()
            finally:
                environment.release()
        except (lmdb.Error, OSError) as error:
            raise StoreUnavailable(f"cannot sync the ledger at {self.path}: {error}") from error

    def sweep(self, horizon_seconds: float, now: Seconds) -> int:
        """Looks at the next `SWEEP_RECORDS_MAX` histories in the order of their keys."""

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

    def close(self) -> None:
        """Syncs and leaves the ledger."""
        with self._using:
            if self._environment is not None:
                try:
                    self.sync()
                except StoreUnavailable:
                    pass  # whoever cares has called `sync`; nothing more can be done here
            self._leave("the ledger was closed")
            self._check_at = float("inf")

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

    def _read(self, work: Callable[[lmdb.Transaction[bytes]], T]) -> T:
        with self._using:
            environment = self._opened()
            try:
                transaction = environment.begin()
                try:
                    return work(transaction)
                finally:
                    transaction.abort()
            except (lmdb.Error, OSError) as error:
                raise self._failed("read", error) from error

    def _write(self, work: Callable[[lmdb.Transaction[bytes]], T]) -> T:
        """Does some work in a write transaction, again where the map had to grow."""
        with self._using:
            while True:
                environment = self._opened()
                try:
                    with environment.write() as transaction:
                        return work(transaction)
                except lmdb.MapFullError as error:
                    if not environment.grow(self._map_bytes_max):
                        raise StoreUnavailable(
                            f"cannot write to the ledger at {self.path}: it is full; raise its largest size,"
                            " `map_bytes_max`"
                        ) from error
                except (lmdb.Error, OSError) as error:
                    raise self._failed("write to", error) from error

    def _opened(self) -> Environment:
        if monotonic() >= self._check_at:
            self._check()
        environment = self._environment
        if environment is None:
            raise StoreUnavailable(self._why)
        # The file never shrinks by itself, and grows between two looks: to touch a page that was cut off would kill the
        # process.
        size = os.lseek(environment.file, 0, os.SEEK_END)
        if size != self._bytes_seen or size < environment.bytes_needed:
            if size < max(self._bytes_seen, environment.bytes_needed):
                raise self._failed("use", lmdb.CorruptedError("the file was cut off"))
            self._bytes_seen = size
        return environment

    def _check(self) -> None:
        """Looks whether the path still leads to the ledger that is open, and opens what it leads to."""
        self._check_at = monotonic() + self._check_seconds
        environment = self._environment
        if environment is not None:
            try:
                if environment.same:
                    environment.measure()
                    return
                self._leave("")
            except lmdb.Error as error:
                self._failed("use", error)
                return
        data = self.path / DATA
        try:
            if (self._met or (self.path / LEDGER).exists()) and not (data.exists() and data.stat().st_size):
                self._why = (
                    f"the ledger at {self.path} has lost its file; put it back, or stop the servers and remove the"
                    " folder to begin without histories"
                )
                return
            self._environment = attach_folder(self.path.resolve(), self._map_bytes, sync=False)
            if not (self.path / LEDGER).exists():
                write_whole(
                    self.path / LEDGER, b"The contact ledger of Opportune: do not delete while a server runs.\n"
                )
            self._met = True
        except (lmdb.Error, OSError) as error:
            self._failed("open", error)

    def _failed(self, what: str, error: Exception) -> StoreUnavailable:
        self._leave(f"cannot {what} the ledger at {self.path}: {error}")
        return StoreUnavailable(self._why)

    def _leave(self, why: str) -> None:
        environment, self._environment, self._why, self._bytes_seen = self._environment, None, why, 0
        if environment is not None:
            environment.release()
