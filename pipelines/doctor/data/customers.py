"""Checks of whose data it is: customers with an absurd share, ids that are none, time zones."""

from __future__ import annotations

from collections.abc import Iterator

from features.common.missing import WORDS
from features.config.policies import QuietHours
from features.lake.lake import literal, quoted, view_name
from features.lake.tables import Table, tables_of
from pipelines.doctor.facts.check import CannotSay, Finding, Seen, listed
from pipelines.doctor.facts.gather import Facts

ROWS_MIN = 100
"""Smaller tables say nothing of who has how much of them."""
CUSTOMERS_MIN = 10
ABSURD_TIMES = 10.0
"""So many times the rows of an average customer, and of the median one, and"""
ABSURD_SHARE_MIN = 0.01
"""this part of all rows, is no person."""
NAMED_MAX = 3


def _of_customers(facts: Facts) -> Iterator[tuple[Table, str]]:
    """Yield the tables with rows of customers, and their names for SQL."""
    for table in tables_of(facts.workspace).values():
        if any(field.name == "customer_id" for field in table.fields):
            yield table, quoted(view_name(table))


def absurd_shares(facts: Facts) -> Seen:
    """One customer has so many of the rows of a table as no person can."""
    found, looked = [], 0
    for table, view in _of_customers(facts):
        if table.time is None:
            continue
        facts.con.execute(
            "CREATE OR REPLACE TEMP TABLE shares AS SELECT customer_id, count(*) AS rows, count(*) / sum(count(*))"
            f" OVER () AS share, median(count(*)) OVER () AS usual, count(*) OVER () AS customers FROM {view} WHERE"
            " customer_id IS NOT NULL GROUP BY 1"
        )
        [(rows, customers)] = facts.con.execute("SELECT coalesce(sum(rows), 0), count(*) FROM shares").fetchall()
        if rows < ROWS_MIN or customers < CUSTOMERS_MIN:
            continue
        looked += int(rows)
        absurd = facts.con.execute(
            f"SELECT customer_id, rows, share FROM shares WHERE share >= {ABSURD_SHARE_MIN} AND share * customers >="
            f" {ABSURD_TIMES} AND rows >= {ABSURD_TIMES} * usual ORDER BY rows DESC LIMIT {NAMED_MAX}"
        ).fetchall()
        for customer, count, share in absurd:
            evidence: dict[str, float | str] = {
                "table": table.name,
                "customer": customer,
                "rows": count,
                "share": share,
                "customers": customers,
            }
            what = f"one customer, {customer!r}, has {share:.1%} of the rows of {table.name}"
            todo = (
                "Look what writes this id: a default, a test, a bot or a missing value. Mend the source; `opportune"
                " forget` removes its rows."
            )
            found.append(Finding("absurd_shares", "warning", what, evidence, todo))
    if not looked:
        raise CannotSay(f"no table has {ROWS_MIN} rows of {CUSTOMERS_MIN} customers")
    return Seen(f"{looked:,} rows", found)


def ids_that_are_none(facts: Facts) -> Seen:
    """Customers are called as programs write what is missing."""
    found, looked = [], 0
    words = ", ".join(literal(word) for word in WORDS)
    for table, view in _of_customers(facts):
        is_word = f"lower(customer_id) IN ({words})"
        [(count, missing, word)] = facts.con.execute(
            f"SELECT count(customer_id), count(*) FILTER ({is_word}), min(customer_id) FILTER ({is_word}) FROM {view}"
        ).fetchall()
        looked += int(count)
        if missing:
            evidence: dict[str, float | str] = {"table": table.name, "rows": count, "such": missing, "id": word}
            what = f"{table.name} has rows of a customer called {word!r}, as programs write a missing value"
            todo = (
                "Leave the cell empty where nobody is known, mend the source, and import again; `opportune forget`"
                " removes the rows."
            )
            found.append(Finding("ids_that_are_none", "warning", what, evidence, todo))
    if not looked:
        raise CannotSay("the lake has no row of a customer")
    return Seen(f"{looked:,} rows", found)


def time_zones(facts: Facts) -> Seen:
    """Time zones of customers, by which quiet hours go, are not understood."""
    hours: dict[str, QuietHours] = facts.workspace.policies.quiet_hours
    columns = sorted(
        {
            one.time_zone
            for one in hours.values()
            if one.time_zone and one.time_zone.startswith(("customer.", "context."))
        }
    )
    if not columns:
        raise CannotSay("no quiet hours go by a column")
    found = []
    for table, strange in facts.data.zones.items():
        for column, zones in strange.items():
            what = f"time zones of {table} are not understood: {listed(list(zones), NAMED_MAX)}"
            todo = (
                "Write IANA names, as Europe/Vienna, or offsets, as +01:00; until then the workspace's own zone counts"
                " for these customers."
            )
            evidence: dict[str, float | str] = {"column": column, "customers": sum(zones.values()), **zones}
            found.append(Finding("time_zones", "warning", what, evidence, todo))
    return Seen(f"{listed(columns)}", found)


CHECKS = (absurd_shares, ids_that_are_none, time_zones)
