"""Facts of the doctor from the contact ledger and the budgets."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import duckdb

from features.common.moments import Micros, in_seconds
from features.common.time_zones import zone_of
from features.common.timestamps import from_microseconds, to_microseconds
from features.lake.offers import catalogue_file, read_catalogue
from features.ledger.ledger import Ledger, ledger_of
from features.ledger.lmdb_file import LEDGER
from features.lmdb_store.environment import DATA, MAP_BYTES_MAX
from features.workspace.workspace import Workspace
from pipelines.doctor.facts.facts import BudgetFacts, LimitFacts
from pipelines.materialize.contact_import import PATIENT_MS, contacting_of

CUSTOMERS_MAX = 1_000
"""Customers whose histories are looked at: those of the last decisions."""


def limits(workspace: Workspace, con: duckdb.DuckDBPyConnection, now: Micros) -> LimitFacts | str:
    """For how many of the customers of the last decisions each limit is exhausted now."""
    if not workspace.policies.limits:
        return "the workspace has no limits"
    folder = workspace.data / "ledger"
    embedded = workspace.store_kind.ledger_in_data_folder
    if embedded and not (folder / LEDGER).exists():
        return "there is no contact ledger yet"
    query = (
        "SELECT customer_id FROM decisions WHERE received IS NOT NULL GROUP BY ALL ORDER BY max(time) DESC, customer_id"
        " LIMIT ?"
    )
    customers = [str(row[0]) for row in con.execute(query, [CUSTOMERS_MAX]).fetchall()]
    contacting, _ = contacting_of(workspace)
    exhausted = dict.fromkeys((f"limit {name}" for name in workspace.policies.limits), 0)

    async def look() -> None:
        ledger: Ledger = ledger_of(workspace, PATIENT_MS)
        try:
            for customer in customers:
                history = ledger.read_now(customer)
                history = await ledger.read(customer) if history is None else history
                for name in {bound.name for bound, offers in contacting.holding(history, in_seconds(now)) if offers}:
                    if name in exhausted:
                        exhausted[name] += 1
        finally:
            ledger.close()

    asyncio.run(look())
    size = (folder / DATA).stat().st_size if embedded else 0
    return LimitFacts(len(customers), exhausted, size, MAP_BYTES_MAX if embedded else 0)


def budgets(workspace: Workspace, con: duckdb.DuckDBPyConnection, now: Micros) -> tuple[BudgetFacts, ...] | str:
    """Return how much of each offer's budget of shows was used, as the lake counts impressions of decisions."""
    if not catalogue_file(workspace).exists():
        return "nothing was imported yet"
    budgeted = [offer for offer in read_catalogue(workspace) if offer.budget is not None]
    if not budgeted:
        return ()
    today = (
        from_microseconds(now)
        .astimezone(zone_of(workspace.settings.time_zone))
        .replace(hour=0, minute=0, second=0, microsecond=0)
    )
    begin, end = (
        to_microseconds(today),
        to_microseconds(today + timedelta(days=1)),
    )  # on the wall's clock: a day may have 23 hours
    of_today = f"time >= make_timestamptz({begin}) AND time < make_timestamptz({end})"
    rows = con.execute(
        f"SELECT offer_id, count(DISTINCT decision_id), count(DISTINCT decision_id) FILTER (WHERE {of_today})"
        " FROM impressions WHERE decision_id IS NOT NULL GROUP BY ALL"
    ).fetchall()
    used = {str(offer): (int(lifetime), int(daily)) for offer, lifetime, daily in rows}
    found = []
    for offer in budgeted:
        lifetime, daily = used.get(offer.offer_id, (0, 0))
        assert offer.budget is not None
        found.append(BudgetFacts(offer.offer_id, lifetime, offer.budget.lifetime, daily, offer.budget.daily))
    return tuple(found)
