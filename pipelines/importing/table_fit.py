"""How the tables of a lake fit together: whose ids the others know, which events stand before their decision, which
time zones nobody knows.
"""

from __future__ import annotations

import duckdb
import msgspec
from msgspec import Struct

from features.common.following import followed_sql
from features.common.time_zones import zone_of
from features.lake import lake
from features.lake.lake import ALL_OFFERS, quoted, view_name
from features.lake.tables import Table, tables_of
from features.workspace.workspace import Workspace

EXAMPLES_MAX = 3
ZONES_MAX, ZONES_TOLD = 10_000, 10
"""Different texts that are looked at, and told: a column of other texts may hold millions."""


class Shared(Struct, frozen=True):
    """The ids of one column of a table, against those of other tables."""

    table: str
    column: str
    rows: int
    """Rows of the table that have such an id."""
    ids: int
    """Different ids."""
    known: dict[str, int]
    """By table that has rows with such ids, how many of them it has too."""
    unknown_rows: int | None
    """Rows whose id the table that describes such things does not have; None where there is no such table."""
    tailed: int = 0
    """Ids of the form digits and `.0`."""
    tailed_known: int = 0
    """Of those, the ones that other tables have without the tail."""
    examples: tuple[str, ...] = ()
    """Some of those with a tail."""
    most: str = ""
    """The customer with the most rows; empty for other ids."""
    most_rows: int = 0
    absurd: bool = False
    """Whether that is so large a part of the rows that it is hardly one customer."""


class Early(Struct, frozen=True):
    """Events of a table that by their own time happened before the decision that they name."""

    clamped: int
    """So little that a clock explains it: they count as happened at the decision's moment."""
    before: int
    """Too much for that: they count for nothing that follows from a decision."""


THINGS = {"customer_id": "customers", "offer_id": "offers", "decision_id": "decisions"}
"""What ids stand for, by their column."""
ABSURD_ROWS_MIN, ABSURD_SHARE_MIN, ABSURD_TIMES = 100, 0.10, 10
"""Of so many rows one customer has such a part at least, and so many times what everybody has on average."""

OF = {"customer_id": "customers", "offer_id": ALL_OFFERS, "decision_id": "decisions"}
"""The column that holds ids, and the view of what it names."""


def shared(workspace: Workspace, con: duckdb.DuckDBPyConnection) -> list[Shared]:
    """Return, for each table with rows, how far others know its ids."""
    found = []
    for column, described in OF.items():
        tables = [
            table for table in tables_of(workspace).values() if any(field.name == column for field in table.fields)
        ]
        for table in tables:
            con.execute(  # units of nobody's name, of anonymous ids and accounts, are in no table of customers
                f"CREATE OR REPLACE TEMP TABLE {_ids(table, column)} AS SELECT {column} AS id, count(*) AS times FROM"
                f" {quoted(view_name(table))} WHERE {column} IS NOT NULL AND {column}[1] NOT IN ('~', '@') GROUP BY 1"
            )
        filled = [table for table in tables if _one(con, f"SELECT count(*) FROM {_ids(table, column)}")]
        if column == "offer_id":
            con.execute(
                f"CREATE OR REPLACE TEMP TABLE _ids_{ALL_OFFERS} AS SELECT DISTINCT offer_id AS id FROM {ALL_OFFERS}"
            )
        for table in filled:
            found.append(_shared(con, table, column, [other for other in filled if other is not table], described))
    return found


def _shared(con: duckdb.DuckDBPyConnection, table: Table, column: str, others: list[Table], described: str) -> Shared:
    own = _ids(table, column)
    ids, rows = con.execute(f"SELECT count(*), sum(times)::BIGINT FROM {own}").fetchall()[0]
    known = {
        other.name: _one(con, f"SELECT count(*) FROM {own} SEMI JOIN {_ids(other, column)} USING (id)")
        for other in others
        if other.name != "offers"
    }
    describing = f"_ids_{described}" if described == ALL_OFFERS else f"_ids_{described}_{column}"
    unknown = None
    if (
        table.name != described
        and not (described == ALL_OFFERS and table.name == "offers")
        and _one(con, f"SELECT count(*) FROM {describing}")
    ):
        unknown = _one(con, f"SELECT coalesce(sum(times), 0)::BIGINT FROM {own} ANTI JOIN {describing} USING (id)")
        known[described] = _one(con, f"SELECT count(*) FROM {own} SEMI JOIN {describing} USING (id)")
    made = Shared(table.name, column, rows, ids, known, unknown)
    if column == "customer_id" and table.name != described:
        most, times = con.execute(f"SELECT id, times FROM {own} ORDER BY times DESC, id LIMIT 1").fetchall()[0]
        absurd = rows >= ABSURD_ROWS_MIN and times / rows >= max(ABSURD_SHARE_MIN, ABSURD_TIMES / ids)
        made = msgspec.structs.replace(made, most=str(most), most_rows=int(times), absurd=bool(absurd))
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE _tailed AS SELECT id FROM {own} WHERE regexp_full_match(id, '[0-9]+[.]0+')"
    )
    tailed = _one(con, "SELECT count(*) FROM _tailed")
    if not tailed:
        return made
    everywhere = " UNION ".join([*(f"SELECT id FROM {_ids(other, column)}" for other in others), "SELECT NULL"])
    stripped = f"SELECT id FROM _tailed WHERE regexp_replace(id, '[.]0+$', '') IN ({everywhere})"
    examples = con.execute(f"SELECT id FROM _tailed ORDER BY id LIMIT {EXAMPLES_MAX}").fetchall()
    count = _one(con, f"SELECT count(*) FROM ({stripped})")
    return msgspec.structs.replace(
        made, tailed=tailed, tailed_known=count, examples=tuple(str(one) for (one,) in examples)
    )


def _ids(table: Table, column: str) -> str:
    return quoted(f"_ids_{view_name(table)}_{column}")


def early(workspace: Workspace, con: duckdb.DuckDBPyConnection, where: str = "true") -> dict[str, Early]:
    """By table, the events that say of themselves that they happened before the decision which they name; tables
    without any are left out.

    Args:
        where: SQL of the rows that are looked at.
    """
    found = {}
    tables = tables_of(workspace)
    for name in lake.FOLLOWING:
        told = (
            f"SELECT decision_id, time FROM ({lake.select(workspace, tables[name])}) WHERE decision_id IS NOT NULL AND"
            f" {where}"
        )
        made = "SELECT decision_id, min(time) AS made FROM decisions GROUP BY decision_id"
        near = f"{followed_sql('time', 'made')} = made"
        counted = f"count(*) FILTER ({near}), count(*) FILTER (NOT {near})"
        clamped, before = con.execute(
            f"SELECT {counted} FROM ({told}) JOIN ({made}) USING (decision_id) WHERE time < made"
        ).fetchall()[0]
        if clamped or before:
            found[name] = Early(clamped, before)
    return found


def unknown_zones(workspace: Workspace, con: duckdb.DuckDBPyConnection) -> dict[str, dict[str, dict[str, int]]]:
    """Time zones that quiet hours ask for and nobody understands: by table and column, how many customers have each,
    the most frequent first.
    """
    found: dict[str, dict[str, dict[str, int]]] = {}
    asked = {hours.time_zone for hours in workspace.policies.quiet_hours.values() if hours.time_zone is not None}
    for kind, table in (("customer", "customers"), ("context", "decisions")):
        for name in sorted(one.removeprefix(f"{kind}.") for one in asked if one.startswith(f"{kind}.")):
            column = quoted(name)
            counted = (
                f"SELECT {column}, count(DISTINCT customer_id) FROM {table} WHERE {column} IS NOT NULL GROUP BY 1 ORDER"
                " BY 2 DESC, 1"
            )
            strange = {
                str(zone): int(times)
                for zone, times in con.execute(counted).fetchmany(ZONES_MAX)
                if zone_of(str(zone)) is None
            }
            if strange:
                found.setdefault(table, {})[name] = dict(list(strange.items())[:ZONES_TOLD])
    return found


def _one(con: duckdb.DuckDBPyConnection, query: str) -> int:
    row = con.execute(query).fetchone()
    assert row is not None
    return int(row[0])
