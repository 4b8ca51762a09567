"""Fill an empty contact ledger from what the lake knows: contacts that decisions took, budgets, sticky assignments, and
all that was heard.

Everything is done again in the order in which it came, by the functions that did it first, each at its own moment. A
take that was granted then is granted again: limits are not asked a second time. What is done twice changes nothing,
budgets aside.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, cast

import duckdb
from msgspec import Struct

from features.columns.catalogue import Catalogue
from features.common.moments import BEGINNING_US, Micros, in_seconds
from features.common.timestamps import MICROSECONDS, duration_seconds, from_microseconds
from features.common.types import ANONYMOUS, CONSENT, IDENTIFY, IMPRESSION, Event
from features.contact_history.history import key_of, word_of
from features.contact_history.limits import Contact
from features.contact_history.takes import Take
from features.events.journal import Settled
from features.events.semantics import EventSchema
from features.events.writer import EventWriter
from features.lake import lake
from features.lake.lake import literal, quoted
from features.lake.loop_tables import CONSENTS, KEPT, LINKS, RECORDED
from features.lake.tables import Table, stream_table, tables_of
from features.ledger.budgets import BudgetBound
from features.ledger.ledger import Ledger
from features.workspace.workspace import Workspace
from serving.events.delivery import EventContext, EventDelivery
from serving.hub.contact_policy import ACCEPTANCES, Contacting
from serving.hub.request_check import ANY, CHANNEL
from serving.runtime.metrics import Metrics

Row = tuple[Any, ...]
Tell = Callable[[str, float | None], None]
STAGE = "contact ledger"
ROWS_AT_ONCE = 10_000
NO_LIMITS = b"\0\0"
"""The choice of a contact that no limit is asked for."""


class Replayed(Struct):
    """What was done again."""

    decisions: int = 0
    contacts: int = 0
    reserved: int = 0
    events: int = 0
    assignments: int = 0

    def __str__(self) -> str:
        kept = f"{self.assignments:,} sticky assignments, " if self.assignments else ""
        took = f"{self.contacts:,} contacts of {self.decisions:,} decisions"
        return f"{took}, {kept}{self.events:,} events, {self.reserved:,} shows of budgets"


@dataclass(frozen=True)
class _Shown:
    """One decision: unit, moment, and (placement, offer, channel) of what it showed, in the order of the answer."""

    decision_id: str
    unit: str
    at: Micros
    offers: list[tuple[str, str, str]]


async def replay(
    workspace: Workspace,
    ledger: Ledger,
    contacting: Contacting,
    catalogue: Catalogue,
    moment: int,
    since: int = 0,
    budgets: bool = True,
    tell: Tell = lambda *_: None,
) -> Replayed:
    """Do again what journals and event log brought into the lake.

    Args:
        ledger: of which only the calls of the embedded one that do not wait are used.
        moment: the rows of the online store contain what was received before, and happened before: such events of
            streams are left out, but for those of anonymous units that were linked to a customer later.
        since: microseconds since 1970: only what was received from then on.
        budgets: False leaves reservations of shows alone, which would be counted twice.

    Raises:
        StoreUnavailable: the ledger fails.
    """
    done, clock, units = Replayed(), [BEGINNING_US], set[str]()
    acceptances = frozenset((workspace.model.label.outcome, *ACCEPTANCES))
    late = duration_seconds(workspace.settings.events.late) * MICROSECONDS
    understanding = EventContext(
        EventSchema(workspace, catalogue.offers), acceptances, late, contacting, catalogue.index
    )
    # The writer is that of a worker's marks, which nothing here has any use for.
    hearing = EventDelivery(lambda: understanding, lambda: ledger, cast(EventWriter, None), Metrics(), lambda: clock[0])
    con = duckdb.connect()
    try:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"SET temp_directory = {literal(str(workspace.data / 'spill'))}")
        sources = [
            *_decisions(workspace, con, since),
            _settled(workspace, con, since),
            *_events(workspace, con, moment, since),
        ]
        for count, (received, _, thing) in enumerate(heapq.merge(*sources, key=itemgetter(0, 1))):
            clock[0] = Micros(received)
            if isinstance(thing, _Shown):
                _take(thing, ledger, contacting, catalogue, done, budgets)
            elif isinstance(thing, Settled):
                await ledger.settle(thing.unit, thing.arms, thing.over)
                done.assignments += len(thing.arms)
            else:
                await hearing.tell([(thing, received)])
                done.events += 1
                units.add(thing.unit)
            if count % ROWS_AT_ONCE == 0:
                tell(STAGE, None)
        for unit in units:  # what was shown and what came of it is in the rows, and was heard for the contact history
            await ledger.trim((await ledger.look(unit)).unit, moment)
    finally:
        con.close()
    return done


def _take(
    shown: _Shown, ledger: Ledger, contacting: Contacting, catalogue: Catalogue, done: Replayed, budgets: bool
) -> None:
    """Reserve and take what the decision did, whatever limits and budgets say by now."""
    done.decisions += 1
    seconds = in_seconds(shown.at)
    positions = [catalogue.index.get(offer) for _, offer, _ in shown.offers]
    reserved = [BudgetBound(budget.offer) for at in positions if at is not None for budget in contacting.budgets(at)]
    if reserved and budgets:
        ledger.take_budgets_now(list(dict.fromkeys(reserved)), contacting.moment(seconds))
        done.reserved += len(reserved)
    contacts = [
        contact
        for at, (placement, offer, channel) in zip(positions, shown.offers, strict=True)
        if (contact := _contact(contacting, at, placement, offer, channel)) is not None
    ]
    known = ledger.look_now(shown.unit)
    if contacts and known is not None:
        ledger.take_now(Take(known.unit, key_of(shown.decision_id), seconds, tuple(contacts), contacting.policy))
        done.contacts += len(contacts)


def _contact(contacting: Contacting, at: int | None, placement: str, offer: str, channel: str) -> Contact | None:
    """Return what the decision took of one offer, with no limit to ask; None where none concerned it."""
    if at is None:  # it has left the catalogue; limits on everything still count it
        return contacting.policy.contact(key_of(offer), 0, word_of(channel), []) if contacting.policy.limits else None
    limited = contacting.limited(at, placement, channel)
    return None if limited is None else replace(limited, choice=NO_LIMITS)


def _raw(workspace: Workspace, table: Table) -> str:
    """Rows as they were brought, each under the unit that it came with; of events only."""
    return f"SELECT * FROM ({lake.select(workspace, table)}) WHERE received IS NOT NULL"


def _fetched(con: duckdb.DuckDBPyConnection, query: str) -> Iterator[Row]:
    cursor = con.cursor()
    cursor.execute("SET TimeZone = 'UTC'")
    cursor.execute(query)
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        yield from rows


def _decisions(
    workspace: Workspace, con: duckdb.DuckDBPyConnection, since: int
) -> Iterator[Iterator[tuple[int, str, Any]]]:
    declared = workspace.features.context.get(CHANNEL)
    default = literal(str(ANY if declared is None or declared.default is None else declared.default))
    channel = default if declared is None else f"coalesce(d.{quoted(CHANNEL)}, {default})"
    query = (
        f"SELECT d.received, d.decision_id, d.customer_id, d.placement, d.offer_id, {channel}"
        f" FROM ({_raw(workspace, tables_of(workspace)['decisions'])}) d LEFT JOIN ({_raw(workspace, RECORDED)}) r"
        " ON r.decision_id = d.decision_id AND r.placement IS NOT DISTINCT FROM d.placement AND r.offer_id = d.offer_id"
        f" WHERE d.received >= {since} ORDER BY d.received, d.decision_id, r.position"
    )

    def shown() -> Iterator[tuple[int, str, Any]]:
        for (received, decision, unit), rows in groupby(_fetched(con, query), key=itemgetter(0, 1, 2)):
            yield (
                received,
                decision,
                _Shown(
                    decision, unit, received, [(placement or "", offer, where) for *_, placement, offer, where in rows]
                ),
            )

    yield shown()


def _settled(workspace: Workspace, con: duckdb.DuckDBPyConnection, since: int) -> Iterator[tuple[int, str, Settled]]:
    """Sticky assignments; those of a unit that were written down together stay together."""
    columns = "received, unit, experiment, arm, bucket_version, probability, over_arm, over_version"
    query = (
        f"SELECT {columns} FROM ({_raw(workspace, KEPT)}) WHERE received >= {since} ORDER BY received, unit, experiment"
    )
    for (received, unit), rows in groupby(_fetched(con, query), key=itemgetter(0, 1)):
        found = [row[2:] for row in rows]
        arms = {experiment: (arm, version, probability) for experiment, arm, version, probability, *_ in found}
        over = {experiment: (arm, version, 0.0) for experiment, *_, arm, version in found if arm is not None}
        yield received, unit, Settled(unit, received, arms, over)


def _events(
    workspace: Workspace, con: duckdb.DuckDBPyConnection, moment: int, since: int
) -> Iterator[Iterator[tuple[int, str, Any]]]:
    """Yield one stream of events a table, each in the order in which the log took them."""
    tables = tables_of(workspace)
    plain = {
        "impressions": (IMPRESSION, "decision_id, offer_id, placement, channel"),
        "outcomes": ("", "decision_id, offer_id, value, type"),
    }
    for name, (kind, columns) in plain.items():
        query = (
            f"SELECT received, event_id, customer_id, epoch_us(time), {columns} FROM ({_raw(workspace, tables[name])})"
        )
        yield _read(con, f"{query} WHERE received >= {since} ORDER BY received", kind, columns.split(", "))
    query = f"SELECT received, event_id, unit, epoch_us(time), customer_id FROM ({_raw(workspace, LINKS)})"
    yield _links(con, f"{query} WHERE received >= {since} ORDER BY received")
    query = (
        f"SELECT received, event_id, customer_id, epoch_us(time), purpose, allowed FROM ({_raw(workspace, CONSENTS)})"
    )
    yield _consents(con, f"{query} WHERE received >= {since} ORDER BY received, event_id")
    # The row of a customer does not hold what a unit did that was linked to them after it was computed.
    linked = f"SELECT unit FROM ({_raw(workspace, LINKS)}) WHERE received >= {max(moment, since)}"
    for name, stream in workspace.features.streams.items():
        fields = [*stream.numbers, *stream.categories]
        chosen = "".join(f", {quoted(field)}" for field in fields)
        query = (
            f"SELECT received, event_id, customer_id, epoch_us(time) AS at{chosen} FROM"
            f" ({_raw(workspace, tables[stream_table(name)])})"
        )
        newer = f"received >= {since} AND (received >= {moment} OR epoch_us(time) >= {moment})"
        yield _read(
            con, f"{query} WHERE {newer} OR customer_id IN ({linked}) ORDER BY received", name, fields, of_stream=True
        )


def _read(
    con: duckdb.DuckDBPyConnection, query: str, kind: str, columns: list[str], of_stream: bool = False
) -> Iterator[tuple[int, str, Event]]:
    for received, event_id, unit, at, *values in _fetched(con, query):
        given = {name: value for name, value in zip(columns, values, strict=True) if value is not None}
        kind = str(given.pop("type", kind)) if not of_stream else kind
        yield received, event_id, _event(event_id, kind, at, unit, **({"fields": given} if of_stream else given))


def _links(con: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[int, str, Event]]:
    for received, event_id, unit, at, customer in _fetched(con, query):
        yield received, event_id, Event(event_id, IDENTIFY, _moment(at), customer, unit.removeprefix(ANONYMOUS))


def _consents(con: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[int, str, Event]]:
    for (received, event_id, unit, at), rows in groupby(_fetched(con, query), key=itemgetter(0, 1, 2, 3)):
        yield (
            received,
            event_id,
            _event(event_id, CONSENT, at, unit, purposes={purpose: allowed for *_, purpose, allowed in rows}),
        )


def _event(event_id: str, kind: str, at: int, unit: str, **more: Any) -> Event:
    anonymous = unit.startswith(ANONYMOUS)
    return Event(
        event_id,
        kind,
        _moment(at),
        "" if anonymous else unit,
        unit.removeprefix(ANONYMOUS) if anonymous else None,
        **more,
    )


def _moment(at: int) -> datetime:
    return from_microseconds(at)
