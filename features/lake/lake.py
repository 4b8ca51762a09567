"""The lake: Parquet files by day, one folder a canonical table. DuckDB reads it; only whole files are ever added or
replaced.
"""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from features.common.clock import now_us
from features.common.following import followed_sql, moment_sql
from features.lake.files import counting, is_imported, writing
from features.lake.loop_tables import LINKS, LOOP_TABLES
from features.lake.tables import Table, tables_of
from features.workspace.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

ALL_OFFERS = "all_offers"
"""The view of the category attributes of all offers, those of `offers.yaml` among them."""

FOLLOWING = ("impressions", "outcomes")
"""Tables whose rows may name the decision that they followed from."""

MEMORY_SHARE = 0.5
"""Part of the machine's memory that a query may take before it spills to disk."""


def connect(workspace: Workspace, linked_before: int | None = None) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB connection in UTC, with one view a table (dots become underscores), empty where there is nothing.

    Views show what is linked as one customer: rows of an anonymous unit have the id of the customer that it belongs to.
    Impressions and outcomes have the time at which they count: see `features/common/following.py`.

    Args:
        linked_before: microseconds since 1970; links that were received at this moment or later are left out. None: all
            count.
    """
    import duckdb  # a server alone runs without it

    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    spill = workspace.data / "spill"
    con.execute(f"SET memory_limit = '{int(memory * MEMORY_SHARE) >> 20}MiB'")
    con.execute(f"SET temp_directory = {literal(str(spill))}")
    con.execute("SET preserve_insertion_order = false")
    known = "" if linked_before is None else f" WHERE received < {linked_before}"
    con.execute(f"CREATE VIEW {view_name(LINKS)} AS SELECT * FROM ({current(workspace, LINKS)}){known}")
    linked = bool(files(workspace, LINKS))
    tables = tables_of(workspace)
    for table in (*tables.values(), *LOOP_TABLES[1:]):
        rows = current(workspace, table)
        if table.name in FOLLOWING:
            rows = _followed(workspace, tables["decisions"], table, rows)
        if linked and any(field.name == "customer_id" for field in table.fields):
            rows = _of_customers(rows)
        con.execute(f"CREATE VIEW {quoted(view_name(table))} AS {rows}")
    con.execute(f"CREATE VIEW {ALL_OFFERS} AS {_all_offers(workspace)}")
    return con


def _of_customers(rows: str) -> str:
    """Rows with the customer of each linked unit in its place: of several links of a unit the one that was received
    first.
    """
    first = f"SELECT unit, arg_min(customer_id, received) AS customer_id FROM {view_name(LINKS)} GROUP BY unit"
    joined = f"({rows}) r LEFT JOIN ({first}) l ON l.unit = r.customer_id"
    return f"SELECT r.* REPLACE (coalesce(l.customer_id, r.customer_id) AS customer_id) FROM {joined}"


def _followed(workspace: Workspace, decisions: Table, table: Table, rows: str) -> str:
    """Rows with the time at which they count: that of the decision which they name, where they are before it for their
    clock alone.

    Ids of this service's decisions say when these were; only those of others are looked for.
    """
    made = moment_sql("r.decision_id")
    joined = f"({rows}) r"
    if files(workspace, decisions) and files(workspace, table):
        others = (
            f"SELECT decision_id, time FROM ({select(workspace, decisions)}) WHERE {moment_sql('decision_id')} IS NULL"
        )
        moments = f"SELECT decision_id, min(time) AS time FROM ({others}) GROUP BY decision_id"
        made = f"coalesce(d.time, {made})"
        joined += f" LEFT JOIN ({moments}) d ON d.decision_id = r.decision_id"
    return f"SELECT r.* REPLACE ({followed_sql('r.time', made)} AS time) FROM {joined}"


def _all_offers(workspace: Workspace) -> str:
    names = [name for name, attribute in workspace.features.offer.items() if attribute.dtype == "category"]
    columns = ", ".join(map(quoted, ["offer_id", *names]))
    by_hand = workspace.offers.offers
    if not by_hand:
        return f"SELECT {columns} FROM offers"
    rows = []
    for offer in by_hand:
        values = [offer.attributes.get(name) for name in names]
        rows.append(
            "("
            + ", ".join([literal(offer.offer_id), *("NULL" if v is None else literal(str(v)) for v in values)])
            + ")"
        )
    ids = ", ".join(literal(offer.offer_id) for offer in by_hand)
    of_table = f"SELECT {columns} FROM offers WHERE offer_id NOT IN ({ids})"
    return f"{of_table} UNION ALL SELECT * FROM (VALUES {', '.join(rows)}) AS by_hand({columns})"


def view_name(table: Table) -> str:
    """Return what SQL calls a table: `streams_calls`."""
    return table.name.replace(".", "_")


def quoted(name: str) -> str:
    """Return an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return an SQL text."""
    return "'" + text.replace("'", "''") + "'"


def files(workspace: Workspace, table: Table) -> list[Path]:
    """Return the files of a table that count now, sorted; none before its first import or shipment."""
    return counting(workspace.lake / table.folder)


def imported_files(workspace: Workspace, table: Table) -> list[Path]:
    """Return those that imports brought: neither shipments nor merging change them."""
    return [file for file in files(workspace, table) if is_imported(file)]


def reader(paths: list[Path]) -> str:
    """SQL of all rows of files; columns that some of them lack are NULL there."""
    names = ", ".join(literal(glob.escape(str(path))) for path in paths)
    return f"read_parquet([{names}], union_by_name = true, hive_partitioning = false)"


def folder_reader(folder: Path) -> str:
    """SQL of all rows of the Parquet files of a folder, whatever characters its path has."""
    return f"read_parquet({literal(f'{glob.escape(str(folder))}/*.parquet')}, hive_partitioning = false)"


def select(workspace: Workspace, table: Table, paths: list[Path] | None = None) -> str:
    """SQL that reads all rows of a table, with `imported_at`, and with `event_id` and `received` of what came as an
    event (else NULL).

    Columns that older files lack are NULL, as are values that are not of the type which is declared by now.
    """
    columns = ", ".join(
        f"TRY_CAST({quoted(field.name)} AS {field.sql_type}) AS {quoted(field.name)}" for field in table.fields
    )
    empty = ", ".join(f"NULL AS {quoted(field.name)}" for field in table.fields)
    shape = (
        f"SELECT {empty}, NULL::TIMESTAMPTZ AS imported_at, NULL::VARCHAR AS event_id, NULL::BIGINT AS received WHERE"
        " false"
    )
    paths = files(workspace, table) if paths is None else paths
    rows = f"{shape} UNION ALL BY NAME SELECT * FROM {reader(paths)}" if paths else shape
    return f"SELECT {columns}, imported_at, event_id, received FROM ({rows})"


def lacking(workspace: Workspace, con: duckdb.DuckDBPyConnection, table: Table) -> set[str]:
    """Names of the table's columns that were declared after some of its files were written, or had another type
    then.
    """
    paths = files(workspace, table)
    if not paths:
        return set()
    names = ", ".join(literal(glob.escape(str(path))) for path in paths)
    in_files = dict(
        con.execute(f"SELECT name, count(DISTINCT file_name) FROM parquet_schema([{names}]) GROUP BY name").fetchall()
    )
    types = {row[0]: row[1] for row in con.execute(f"DESCRIBE SELECT * FROM {reader(paths)}").fetchall()}
    declared = {row[0]: row[1] for row in con.execute(f"DESCRIBE {select(workspace, table, [])}").fetchall()}
    return {
        field.name
        for field in table.fields
        if in_files.get(field.name, 0) < len(paths) or types[field.name] != declared[field.name]
    }


def current(workspace: Workspace, table: Table) -> str:
    """SQL that reads the valid rows of a table: of versions with the same key, the one imported last."""
    rows = select(workspace, table)
    if not table.versioned:
        return rows
    key = ", ".join(quoted(name) for name in table.key)
    return f"SELECT * FROM ({rows}) QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY imported_at DESC) = 1"


def add(workspace: Workspace, con: duckdb.DuckDBPyConnection, table: Table, rows: str, name: str) -> int:
    """Write a temporary table into the lake as new files called `name`, by day, each row stamped with the moment of the
    import.

    Files are written aside and moved in one by one, or a day at once. A crash leaves some of them: the repeated import
    finds their rows in the lake and adds the rest.

    Returns:
        Number of rows written.
    """
    aside = workspace.data / "aside" / table.folder.replace("/", "-")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    # Later than all that is there, whatever the clock did: the latest version of a row is the one that holds.
    stamp = f"make_timestamptz({now_us()}::BIGINT)"
    latest = f"greatest({stamp}, (SELECT max(imported_at) + to_microseconds(1) FROM ({select(workspace, table)})))"
    stamped = f"SELECT *, {latest if table.versioned else stamp} AS imported_at FROM {rows}"
    if table.time is None:
        options = "FORMAT parquet, COMPRESSION zstd"
        written = con.execute(f"COPY ({stamped}) TO {literal(str(aside / f'{name}.parquet'))} ({options})").fetchone()
    else:
        by_day = f"SELECT *, make_timestamp(epoch_us({quoted(table.time)}))::DATE AS day FROM ({stamped}) ORDER BY day"
        options = f"FORMAT parquet, COMPRESSION zstd, PARTITION_BY (day), FILENAME_PATTERN {literal(name + '-{i}')}"
        written = con.execute(f"COPY ({by_day}) TO {literal(str(aside))} ({options})").fetchone()
    count = int(written[0]) if written else 0
    if count:
        os.sync()  # once for hundreds of files: a power cut must not leave a file under its name without its content
        with writing(workspace.lake):
            _move(aside, workspace.lake / table.folder)
    shutil.rmtree(aside)
    return count


def _move(aside: Path, folder: Path) -> None:
    """Move files and days into a folder; days that are new to it go whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in sorted(aside.iterdir()):
        place = folder / entry.name
        if entry.is_dir() and place.exists():
            _move(entry, place)
        else:
            entry.rename(place)
