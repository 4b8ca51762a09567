"""Checks of whose data it is: customers with an absurd share, ids that are none, tables that do not know each other, time zones."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb

from features.lake import quoted, view_name
from features.policies import QuietHours
from features.tables import Table, tables_of
from features.zones import zone_of
from pipelines.doctor_check import CannotSay, Finding, Seen, listed
from pipelines.doctor_gather import Facts

ROWS_MIN = 100
"""Smaller tables say nothing of who has how much of them."""
CUSTOMERS_MIN = 10
ABSURD_TIMES = 10.0
"""So many times the rows of an average customer, and of the median one, and"""
ABSURD_SHARE_MIN = 0.01
"""this part of all rows, is no person."""
KNOWN_SHARE_MIN = 0.05
"""With fewer events of customers whom the table `customers` knows, ids are written in two ways."""
NAMED_MAX = 3

WORDS = ("nan", "none", "null", "nil", "undefined", "n/a", "#n/a", "(null)", "<na>", "nat")
"""What programs write for a value that is missing."""


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
            "CREATE OR REPLACE TEMP TABLE shares AS SELECT customer_id, count(*) AS rows, count(*) / sum(count(*)) OVER () AS share,"
            f" median(count(*)) OVER () AS usual, count(*) OVER () AS customers FROM {view} WHERE customer_id IS NOT NULL GROUP BY 1"
        )
        [(rows, customers)] = facts.con.execute("SELECT coalesce(sum(rows), 0), count(*) FROM shares").fetchall()
        if rows < ROWS_MIN or customers < CUSTOMERS_MIN:
            continue
        looked += int(rows)
        absurd = facts.con.execute(
            f"SELECT customer_id, rows, share FROM shares WHERE share >= {ABSURD_SHARE_MIN} AND share * customers >= {ABSURD_TIMES}"
            f" AND rows >= {ABSURD_TIMES} * usual ORDER BY rows DESC LIMIT {NAMED_MAX}"
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
            todo = "Look what writes this id: a default, a test, a bot or a missing value. Mend the source; `opportune forget` removes its rows."
            found.append(Finding("absurd_shares", "warning", what, evidence, todo))
    if not looked:
        raise CannotSay(f"no table has {ROWS_MIN} rows of {CUSTOMERS_MIN} customers")
    return Seen(f"{looked:,} rows", found)


def ids_that_are_none(facts: Facts) -> Seen:
    """Customers are called as programs write what is missing, or as numbers with `.0` that a program made of whole ones."""
    found, looked = [], 0
    words = ", ".join(f"'{word}'" for word in WORDS)
    for table, view in _of_customers(facts):
        count, missing, word, points, example = _ids(facts.con, view, words)
        looked += count
        if missing:
            evidence: dict[str, float | str] = {"table": table.name, "rows": count, "such": missing, "id": word}
            what = f"{table.name} has rows of a customer called {word!r}, as programs write a missing value"
            todo = "Leave the cell empty where nobody is known, mend the source, and import again; `opportune forget` removes the rows."
            found.append(Finding("ids_that_are_none", "warning", what, evidence, todo))
        if points:
            evidence = {"table": table.name, "rows": count, "such": points, "id": example}
            what = f"{table.name} has customer ids like {example}: whole numbers that a program wrote as decimal ones"
            todo = "Write ids as texts or whole numbers (in pandas: dtype `Int64` or `string`), and import again."
            found.append(Finding("ids_that_are_none", "warning", what, evidence, todo))
    if not looked:
        raise CannotSay("the lake has no row of a customer")
    return Seen(f"{looked:,} rows", found)


def _ids(con: duckdb.DuckDBPyConnection, view: str, words: str) -> tuple[int, int, str, int, str]:
    """Return how many rows there are, those whose id is a word for nothing with one of them, those whose id ends with `.0` with one."""
    is_word, is_point = f"lower(customer_id) IN ({words})", r"regexp_full_match(customer_id, '-?[0-9]+\.0+')"
    [(count, missing, word, points, example)] = con.execute(
        f"SELECT count(customer_id), count(*) FILTER ({is_word}), min(customer_id) FILTER ({is_word}), count(*) FILTER ({is_point}),"
        f" min(customer_id) FILTER ({is_point}) FROM {view}"
    ).fetchall()
    return int(count), int(missing), str(word), int(points), str(example)


def unknown_customers(facts: Facts) -> Seen:
    """Tables of events are hardly of customers whom the table `customers` knows."""
    [(known,)] = facts.con.execute("SELECT count(DISTINCT customer_id) FROM customers").fetchall()
    if known < CUSTOMERS_MIN:
        raise CannotSay("the table customers has next to no rows: nobody can be unknown")
    found, looked = [], 0
    for table, view in _of_customers(facts):
        if table.name == "customers":
            continue
        [(rows, of_known)] = facts.con.execute(
            f"SELECT count(*), count(c.customer_id) FROM {view} e LEFT JOIN (SELECT DISTINCT customer_id FROM customers) c USING (customer_id)"
            " WHERE e.customer_id IS NOT NULL"
        ).fetchall()
        if rows < ROWS_MIN:
            continue
        looked += int(rows)
        if of_known < KNOWN_SHARE_MIN * rows:
            [(ours, theirs)] = facts.con.execute(
                f"SELECT (SELECT min(customer_id) FROM customers), (SELECT min(customer_id) FROM {view})"
            ).fetchall()
            evidence: dict[str, float | str] = {"table": table.name, "rows": rows, "of_known_customers": of_known, "customers": known}
            what = f"{table.name} is hardly of customers whom the table customers knows: nothing that it says reaches them"
            shapes = f"in customers like {_shape(ours)}, here like {_shape(theirs)}"
            todo = f"Look how ids are written ({shapes}; 9 is a digit, x a letter), and write them alike."
            found.append(Finding("unknown_customers", "warning", what, evidence, todo))
    if not looked:
        raise CannotSay(f"no table has {ROWS_MIN} events of customers")
    return Seen(f"{looked:,} rows", found)


def _shape(text: str) -> str:
    """Return the shape of an id, which names nobody: `AB-12` is `xx-99`."""
    return "".join("9" if sign.isdigit() else "x" if sign.isalpha() else sign for sign in text)


def time_zones(facts: Facts) -> Seen:
    """Time zones of customers, by which quiet hours go, are not understood."""
    hours: dict[str, QuietHours] = facts.workspace.policies.quiet_hours
    columns = sorted({one.time_zone for one in hours.values() if one.time_zone is not None and one.time_zone.startswith("customer.")})
    if not columns:
        raise CannotSay("no quiet hours go by a column of customers")
    found, looked = [], 0
    for column in columns:
        name = column.partition(".")[2]
        latest = f"SELECT customer_id, arg_max({quoted(name)}, valid_from) AS zone FROM customers GROUP BY 1"
        rows = facts.con.execute(f"SELECT zone, count(*) FROM ({latest}) WHERE zone IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1").fetchall()
        looked += sum(int(count) for _, count in rows)
        strange = {str(zone): int(count) for zone, count in rows if zone_of(str(zone)) is None}
        if strange:
            evidence: dict[str, float | str] = {
                "column": name,
                "customers": sum(strange.values()),
                "of": sum(int(count) for _, count in rows),
            }
            what = f"time zones of {sum(strange.values()):,} customers are not understood: {listed(list(strange), 5)}"
            todo = "Write them as `Europe/Berlin`; until then the workspace's own zone counts for these customers' quiet hours."
            found.append(Finding("time_zones", "warning", what, evidence | dict(list(strange.items())[:5]), todo))
    if not looked:
        raise CannotSay("no customer has a time zone")
    return Seen(f"time zones of {looked:,} customers", found)


CHECKS = (absurd_shares, ids_that_are_none, unknown_customers, time_zones)
