"""The contact history that a business brings: its imported decisions and outcomes, written into the ledger.

An offer that was decided is written as an impression: whoever records past decisions records what was shown. Only what
some limit, pause, prerequisite or exclusion of the workspace can still look at is written, and nothing where there is
none of them: a history that is longer than it need be is read and counted with every decision. What came from journals
and events is left out: the ledger heard of it at once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import msgspec

from features.columns.catalogue import Catalogue
from features.common.errors import Failure
from features.common.moments import Micros, Seconds, in_seconds
from features.common.timestamps import MICROSECONDS
from features.contact_history.history import IMPRESSION, OUTCOME, key_of, word_of
from features.contact_history.limits import ContactPolicy
from features.contact_history.takes import ContactEvent
from features.lake import lake
from features.lake.offers import read_catalogue
from features.lake.tables import tables_of
from features.ledger.ledger import Ledger, ledger_of, open_ledger
from features.workspace.workspace import Workspace
from serving.hub.request_check import ANY, CHANNEL

if TYPE_CHECKING:
    from serving.hub.contact_policy import Contacting

PATIENT_MS = 10_000.0
"""How long a call to the ledger may take: nobody waits for an answer."""
CUSTOMERS_AT_ONCE = 64
ROWS_AT_ONCE = 10_000
STAGE = "contact history"

Tell = Callable[[str, float | None], None]
Row = tuple[str, int, int, str, str, str, str]
"""Customer, kind, microseconds since 1970, offer, decision, channel, type of outcome."""
Histories = Iterator[tuple[str, list[ContactEvent]]]


class NoCatalogue(Failure):
    """The workspace was not imported yet."""


class Brought(msgspec.Struct):
    """What was written into the ledger; a repetition finds nothing new."""

    customers: int = 0
    impressions: int = 0
    outcomes: int = 0
    new: int = 0

    def __str__(self) -> str:
        return (
            f"{self.impressions:,} impressions and {self.outcomes:,} outcomes of {self.customers:,} customers,"
            f" {self.new:,} of them new"
        )


def needs_history(workspace: Workspace) -> bool:
    """Return whether anything in the workspace's files looks at contact histories; a glance, since offers of tables
    bind no others.
    """
    policies = workspace.policies
    return bool(
        policies.limits or policies.pauses or any(offer.requires or offer.excludes for offer in workspace.offers.offers)
    )


def digest_of(workspace: Workspace) -> str:
    """Digest of what the written history depends on: the lake's files, what looks back at it, and where it is kept;
    empty for none.
    """
    if not needs_history(workspace):
        return ""
    policies, tables = workspace.policies, tables_of(workspace)
    files = sorted(
        str(file.relative_to(workspace.lake))
        for name in ("decisions", "outcomes")
        for file in lake.imported_files(workspace, tables[name])
    )
    bound = [
        workspace.offers.group,
        *((offer.offer_id, offer.group, offer.requires, offer.excludes) for offer in workspace.offers.offers),
    ]
    said = msgspec.json.encode(
        [policies.limits, policies.pauses, policies.hold, bound, files, workspace.online_url], order="sorted"
    )
    return hashlib.sha256(said).hexdigest()


def contacting_of(workspace: Workspace) -> tuple[Contacting, Catalogue]:
    """Return the contact policies as they are now, on the catalogue as it was imported.

    Raises:
        NoCatalogue: nothing was imported yet.
    """
    from serving.hub.contact_policy import Contacting

    try:
        catalogue = Catalogue(read_catalogue(workspace))
    except FileNotFoundError as error:
        raise NoCatalogue(
            f"expected the offers of {workspace.folder}, got none: run `opportune import` first"
        ) from error
    return Contacting.of(workspace, catalogue), catalogue


def bring(workspace: Workspace, now: Micros, tell: Tell = lambda *_: None, place: Path | None = None) -> Brought:
    """Write the history of every customer into the ledger, as far back as the policies look; may be repeated.

    Args:
        now: microseconds since 1970.
        place: folder of another embedded ledger than the workspace's own.

    Raises:
        NoCatalogue: nothing was imported yet.
        StoreUnavailable: the ledger does not answer; what was written stays, and is written once.
    """
    contacting, catalogue = contacting_of(workspace)
    policy, brought = contacting.policy, Brought()
    groups = {offer.offer_id: key_of(offer.group) for offer in catalogue.offers if offer.group}
    con = lake.connect(workspace)
    try:
        parts = _parts(workspace, policy, now)
        customers = _customers(con, parts)
        histories = _histories(con, parts, groups)
        opened = (
            partial(ledger_of, workspace, PATIENT_MS)
            if place is None
            else partial(open_ledger, None, place, PATIENT_MS, workspace.project)
        )
        asyncio.run(
            _write(
                opened, policy, histories, in_seconds(now), brought, lambda done: tell(STAGE, done / max(customers, 1))
            )
        )
    finally:
        con.close()
    return brought


def _customers(con: duckdb.DuckDBPyConnection, parts: str) -> int:
    found = con.execute(f"SELECT count(DISTINCT customer_id) FROM ({parts})").fetchone()
    return int(found[0]) if found else 0


def reach(policy: ContactPolicy) -> tuple[float, float]:
    """Return how far back impressions and outcomes are looked at, in seconds; 0 for not at all. A limit on decisions
    counts no impressions.
    """
    impressions = max((limit.window_seconds for limit in policy.limits if limit.counts == "impressions"), default=0.0)
    pauses = (pause.within_seconds + pause.pause_seconds for pause in policy.pauses)
    return impressions, max(policy.remember_seconds, *pauses, 0.0)


def _parts(workspace: Workspace, policy: ContactPolicy, now: Micros) -> str:
    """Return the rows. Of each customer one more than a history has room for, so that the ledger marks where rows are
    missing.
    """
    impressions, outcomes = (now - int(seconds * MICROSECONDS) for seconds in reach(policy))
    declared = workspace.features.context.get(CHANNEL)
    default = lake.literal(str(ANY if declared is None or declared.default is None else declared.default))
    channel = default if declared is None else f"coalesce({CHANNEL}, {default})"
    parts = [
        _newest(
            "decisions", f"{IMPRESSION} AS kind, {channel} AS channel, '' AS type", policy.contacts_max + 1, impressions
        ),
        _newest("outcomes", f"{OUTCOME} AS kind, '' AS channel, type", policy.outcomes_max + 1, outcomes),
    ]
    return " UNION ALL BY NAME ".join(parts)


def _newest(table: str, more: str, rows_max: int, since: int) -> str:
    return (
        f"SELECT customer_id, time, offer_id, coalesce(decision_id, '') AS decision_id, {more} FROM {table} WHERE time"
        f" > make_timestamptz({since}) AND offer_id IS NOT NULL AND event_id IS NULL QUALIFY row_number() OVER"
        f" (PARTITION BY customer_id ORDER BY time DESC, decision_id DESC, offer_id DESC) <= {rows_max}"
    )


def _histories(con: duckdb.DuckDBPyConnection, parts: str, groups: dict[str, int]) -> Histories:
    """Yield each customer with what happened, in the order of time; the database sorts, and spills where it must."""
    columns = "customer_id, kind, epoch_us(time) AS moment, offer_id, decision_id, channel, type"
    cursor = con.execute(f"SELECT {columns} FROM ({parts}) ORDER BY customer_id, moment, kind, decision_id, offer_id")

    def rows() -> Iterator[Row]:
        while found := cursor.fetchmany(ROWS_AT_ONCE):
            yield from found

    for customer, happened in groupby(rows(), key=lambda row: row[0]):
        yield customer, [_event(row, groups) for row in happened]


def _event(row: Row, groups: dict[str, int]) -> ContactEvent:
    _, kind, at, offer, decision, channel, what = row
    return ContactEvent(
        kind,
        at / MICROSECONDS,
        key_of(offer),
        key_of(decision) if decision else 0,
        groups.get(offer, 0),
        word_of(channel) if channel else 0,
        word_of(what) if what else 0,
    )


async def _write(
    opened: Callable[[], Ledger],
    policy: ContactPolicy,
    histories: Histories,
    now: Seconds,
    brought: Brought,
    tell: Callable[[int], None],
) -> None:
    ledger = opened()
    try:
        await _note(ledger, policy, histories, now, brought, tell)
        ledger.sync()
    finally:
        ledger.close()  # while the loop runs: a connection belongs to it


async def _note(
    ledger: Ledger,
    policy: ContactPolicy,
    histories: Histories,
    now: Seconds,
    brought: Brought,
    tell: Callable[[int], None],
) -> None:
    while batch := list(islice(histories, CUSTOMERS_AT_ONCE)):
        noted = await asyncio.gather(*(ledger.note(customer, policy, events, now) for customer, events in batch))
        for (_, events), new in zip(batch, noted, strict=True):
            # What a history has no room for was sent to mark the gap: it is not kept, and would be new again each time.
            kept = [
                [one for event, one in zip(events, new, strict=True) if event.kind == kind][-most:]
                for kind, most in ((IMPRESSION, policy.contacts_max), (OUTCOME, policy.outcomes_max))
            ]
            brought.impressions += len(kept[0])
            brought.outcomes += len(kept[1])
            brought.new += sum(map(sum, kept))
        brought.customers += len(batch)
        tell(brought.customers)
