"""Which good rows of an import are new: those that the lake does not hold yet, each as often as it occurs."""

from __future__ import annotations

import duckdb

from features.lake import lake
from features.lake.lake import literal, quoted
from features.lake.tables import Table
from features.workspace.workspace import Workspace
from pipelines.importing.source_files import ROW_BITS, BadTable


def refuse_newly_declared(workspace: Workspace, con: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Refuse rows that the lake has without a column that was declared since: they would be stored a second time.

    Raises:
        BadTable: when there are such rows.
    """
    lacking = set() if table.versioned else lake.lacking(workspace, con, table)
    if not lacking:
        return
    old = ", ".join(quoted(field.name) for field in table.fields if field.name not in lacking)
    fuller = " OR ".join(f"{quoted(name)} IS NOT NULL" for name in sorted(lacking))
    fewer = " AND ".join(f"{quoted(name)} IS NULL" for name in sorted(lacking))
    known = f"SELECT {old} FROM ({lake.current(workspace, table)}) WHERE {fewer}"
    again = one(
        con, f"SELECT count(*) FROM (SELECT {old} FROM judged WHERE _reason IS NULL AND ({fuller}) INTERSECT {known})"
    )
    if again:
        folder = workspace.lake / table.folder
        raise BadTable(
            f"{table.name}: expected rows that the lake does not have yet, got {again} that it has without"
            f" {', '.join(sorted(lacking))}, which were declared later. Remove {folder} and import all files of the"
            " table again."
        )


def select_added(workspace: Workspace, con: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Make the temporary table `added`: good rows that the lake does not hold yet."""
    if not table.key:
        _add_events(workspace, con, table)
        return
    if not table.versioned:
        _refuse_conflicts(workspace, con, table)
    columns, key = _names(table), ", ".join(map(quoted, table.key))
    # Of several versions in one import the last counts, as it would over several imports.
    twice = f"SELECT {key}, max(_row) AS kept FROM judged WHERE _reason IS NULL GROUP BY {key} HAVING count(*) > 1"
    once = (
        f"SELECT j.* FROM judged j LEFT JOIN ({twice}) t USING ({key}) WHERE j._reason IS NULL AND (t.kept IS NULL OR"
        " t.kept = j._row)"
    )
    existing = (
        f" EXCEPT SELECT {columns} FROM ({lake.current(workspace, table)})" if lake.files(workspace, table) else ""
    )
    con.execute(f"CREATE TEMP TABLE added AS SELECT {columns} FROM ({once}){existing}")


def _add_events(workspace: Workspace, con: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Make `added` for events, which have no key: one that occurs twice in a file is two events, one in two files, or
    in the lake, is the same again.
    """
    columns, good = _names(table), "FROM judged WHERE _reason IS NULL"
    files = one(con, f"SELECT count(DISTINCT _row >> {ROW_BITS}) FROM judged")
    stored = bool(lake.files(workspace, table))
    if files <= 1 and not stored:
        con.execute(f"CREATE TEMP TABLE added AS SELECT {columns} {good}")
        return
    each = f"SELECT {columns}, count(*) AS _times {good} GROUP BY {columns}, _row >> {ROW_BITS}"
    rows = f"SELECT {columns}, max(_times) AS _times FROM ({each}) GROUP BY {columns}"
    if stored:
        time = quoted(str(table.time))
        span = f"{time} BETWEEN (SELECT min({time}) {good}) AND (SELECT max({time}) {good})"
        rows += f" UNION ALL SELECT {columns}, -1 FROM ({lake.current(workspace, table)}) WHERE {span}"
    more = f"SELECT {columns}, sum(_times)::BIGINT AS _more FROM ({rows}) GROUP BY {columns} HAVING _more > 0"
    con.execute(
        f"CREATE TEMP TABLE added AS SELECT {columns} FROM (SELECT {columns}, unnest(range(_more)) FROM ({more}))"
    )


def _refuse_conflicts(workspace: Workspace, con: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Refuse rows whose key is known with another content: nobody can tell which is true, so the first stays."""
    key = ", ".join(map(quoted, table.key))
    differs = " OR ".join(f"j.{quoted(field.name)} IS DISTINCT FROM r.{quoted(field.name)}" for field in table.fields)
    reason = literal(f"another row with the same {' and '.join(f'`{name}`' for name in table.key)} says something else")
    first = f"SELECT {key}, min(_row) AS _row FROM judged WHERE _reason IS NULL GROUP BY {key} HAVING count(*) > 1"
    references = [f"SELECT * FROM judged WHERE _row IN (SELECT _row FROM ({first}))"]
    if lake.files(workspace, table):
        references.insert(0, lake.current(workspace, table))
    for reference in references:
        wrong = (
            f"SELECT j._row FROM judged j JOIN ({reference}) r USING ({key}) WHERE j._reason IS NULL AND ({differs})"
        )
        con.execute(f"UPDATE judged SET _reason = {reason} WHERE _row IN ({wrong})")


def _names(table: Table) -> str:
    return ", ".join(quoted(field.name) for field in table.fields)


def one(con: duckdb.DuckDBPyConnection, query: str) -> int:
    """Return the number that a query gives."""
    row = con.execute(query).fetchone()
    assert row is not None
    return int(row[0])
