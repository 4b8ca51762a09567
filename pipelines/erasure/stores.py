"""Forgetting in the stores that serve: event log and dead letters, ledger, online store. None needs a lock of the
workspace.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress

import msgspec

from features.columns.rows import StoreUnavailable
from features.common.types import ANONYMOUS, IDENTIFY, Event
from features.contact_history.history import ENTRY_BYTES
from features.events import log as event_log
from features.events.log import EventLog, event_folder
from features.ledger.ledger import Ledger, ledger_of
from features.online import erase as online_erase
from features.workspace.workspace import Workspace
from pipelines.erasure.places import Removed, Step, plain

LEDGER_MS = 5_000.0
"""How long a call to a ledger over the network may take: this is no request."""

_decode = msgspec.msgpack.Decoder(Event).decode


class EventLogPlace:
    """The event log with its dead letters. First of all it takes note that nothing of before `at` is let in any more;
    see `Place`.
    """

    name = "events"

    def __init__(self, workspace: Workspace, at: int) -> None:
        self._folder, self._at = event_folder(workspace.data), at

    def remove(self, units: Sequence[str], step: Step) -> Removed:
        removed = 0
        with closing(EventLog(self._folder)) as log:
            for unit in units:
                step("mark and delete events")
                done = log.forget(unit, self._at)
                removed += done["events"] + done["dead_letters"] + done["set_aside"]
            with event_log.reading(self._folder) as connection:
                links = _links(connection, units)
            if links:
                step("delete links of others")
                with log.file.transaction() as connection:
                    connection.executemany("DELETE FROM events WHERE seq = ?", [(seq,) for seq in links])
                log.checkpoint(whole=True)
        return Removed(removed + len(links), removed + len(links))

    def left(self, units: Sequence[str]) -> int:
        if not event_log.exists(self._folder):
            return 0
        names = ", ".join("?" * len(units))
        with event_log.reading(self._folder) as connection:
            tables = [f"SELECT count(*) FROM {table} WHERE unit IN ({names})" for table in ("events", "dead")]
            rows = sum(int(connection.execute(query, tuple(units)).fetchone()[0]) for query in tables)
            return rows + len(_links(connection, units))


def _links(connection: sqlite3.Connection, units: Sequence[str]) -> list[int]:
    """Events that say of one of these anonymous units whose it is, be they of a customer who is not to be forgotten."""
    found = []
    for name in (plain(unit) for unit in units if unit.startswith(ANONYMOUS)):
        for seq, body in connection.execute("SELECT seq, body FROM events WHERE instr(body, ?)", (name.encode(),)):
            with suppress(msgspec.MsgspecError):
                event = _decode(body)
                if event.type == IDENTIFY and event.anonymous_id == name:
                    found.append(seq)
    return found


class Contacts:
    """The ledger: contact history, what is new, consent, links, sticky assignments; see `Place`."""

    name = "ledger"

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def remove(self, units: Sequence[str], step: Step) -> Removed:
        return asyncio.run(self._remove(units, step))

    def left(self, units: Sequence[str]) -> int:
        return asyncio.run(self._left(units))

    async def _remove(self, units: Sequence[str], step: Step) -> Removed:
        found = 0
        with closing(ledger_of(self._workspace, LEDGER_MS)) as ledger:
            for unit in reversed(units):  # those that are linked first: while they are, they lead to the customer
                found += await _kept(ledger, unit, damaged=1)
                step("forget contacts")
                await ledger.forget(unit)
        return Removed(found, found)

    async def _left(self, units: Sequence[str]) -> int:
        with closing(ledger_of(self._workspace, LEDGER_MS)) as ledger:
            return sum([await _kept(ledger, unit, damaged=1) for unit in units])


async def _kept(ledger: Ledger, unit: str, damaged: int) -> int:
    """Entries, events, consents, links and sticky assignments that the ledger has of a unit; a record that cannot be
    read counts as `damaged`.
    """
    try:
        known = await ledger.look(unit)
    except StoreUnavailable as error:
        if "damaged" in str(error):
            return damaged
        raise
    if known.unit != unit:
        return 1  # a link; the rest is the customer's
    recent = known.recent
    return len(known.contacts) // ENTRY_BYTES + len(recent.events) + len(recent.consent) + len(recent.kept)


class OnlineRows:
    """The rows of the online store, so that no worker reads them any more; see `Place`. What files may still hold,
    `OnlineFiles` removes.
    """

    name = "online"

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def remove(self, units: Sequence[str], step: Step) -> Removed:
        found, how = 0, ""
        for unit in units:
            step("delete from the online store")
            had, how = online_erase.delete(self._workspace, unit)
            found += had
        return Removed(found, found, how)

    def left(self, units: Sequence[str]) -> int:
        return sum(online_erase.exists(self._workspace, unit) for unit in units)


def linked_units(workspace: Workspace, customer_id: str, candidates: Sequence[str]) -> list[str]:
    """Return those of some anonymous units that belong to a customer, by what the ledger says of them, or nothing.

    A unit is linked once: one that the ledger knows as another customer's is not theirs.
    """

    async def asked() -> list[str]:
        with closing(ledger_of(workspace, LEDGER_MS)) as ledger:
            found = []
            for unit in candidates:
                try:
                    owner = (await ledger.look(unit)).unit
                except StoreUnavailable:
                    owner = unit  # better forget what may be theirs
                if owner in (unit, customer_id):
                    found.append(unit)
            return found

    return asyncio.run(asked())
