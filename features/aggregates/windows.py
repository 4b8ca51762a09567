"""Windows: columns of customers at moments, computed by DuckDB over the lake, one customer bucket at a time.

A window of 30 days at moment t holds the events with t - 30 days <= time < t: an event at the very moment does not
count, so nothing that follows from a decision can be seen by it. Sums are exact: amounts are added as whole millionths,
which makes the result independent of the order of events, of threads and of engines.

For each view there is one query (`window_sql.py`). Its rows are (entity, moment, scalars…, keys, values by key…), the
offline table that Feast joins and materializes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from features.aggregate_kinds.kind import whole_second
from features.aggregates.partitions import bucket_of, map_buckets
from features.aggregates.window_sql import attributes_query, customer_query, events_query, everyone_query
from features.columns.streams import BUILT_IN_STREAMS
from features.columns.views import View
from features.common.moments import Micros
from features.lake import lake
from features.lake.lake import literal, quoted
from features.lake.tables import SQL_TYPES
from features.workspace.workspace import Workspace


def entity_key(view: View) -> str:
    """Return the name of the column that says whose row it is."""
    return "customer_id" if view.entity == "customer" else "everyone_id"


def offline_file(workspace: Workspace, view: View, bucket: int) -> Path:
    """Return where the rows of a view lie that belong to the customers of a bucket."""
    return workspace.offline / view.name / f"bucket-{bucket:04d}.parquet"


def moments_of(con: duckdb.DuckDBPyConnection, now: Micros) -> pa.Table:
    """Return when columns are needed: for each customer with a decision its moment, and for every customer now."""
    stamp = f"make_timestamptz({now}::BIGINT)"
    return con.sql(f"""
        SELECT DISTINCT customer_id, moment FROM (
            SELECT customer_id, time AS moment FROM decisions WHERE time <= {stamp}
            UNION ALL SELECT customer_id, {stamp} FROM ({_customers(con)})
        ) ORDER BY customer_id, moment
        """).to_arrow_table()


def _customers(con: duckdb.DuckDBPyConnection) -> str:
    """Return the SQL of everyone with a row anywhere: a customer needs no attributes to be known."""
    views = [row[0] for row in con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()]
    tables = [name for name in views if name in ("customers", *BUILT_IN_STREAMS) or name.startswith("streams_")]
    return " UNION ".join(f"SELECT customer_id FROM {quoted(name)}" for name in tables)


def compute(workspace: Workspace, now: Micros) -> dict[str, int]:
    """Compute all views at all moments and write the offline tables.

    Of events and links, what was received before `now` counts, so that the same moment gives the same rows whenever it
    is computed.

    Args:
        now: microseconds since 1970; the moment of the rows that are materialized.

    Returns:
        Rows written, by view.
    """
    con = lake.connect(workspace, linked_before=now)
    moments = moments_of(con, now)
    buckets = workspace.settings.buckets
    customers: Any = moments.column("customer_id").combine_chunks().dictionary_encode()
    bucket = np.array([bucket_of(customer, buckets) for customer in customers.dictionary.to_pylist()], np.int32)
    moments = moments.append_column("bucket", pa.array(bucket[customers.indices.to_numpy()]))
    con.register("all_moments", moments)
    aside = workspace.data / "aside" / "offline"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    written = dict.fromkeys((view.name for view in workspace.views), 0)
    customer_views = [view for view in workspace.views if view.entity == "customer"]

    def one_bucket(number: int) -> None:
        con.execute(
            "CREATE OR REPLACE TEMP TABLE moments AS SELECT customer_id, moment FROM all_moments WHERE bucket ="
            f" {number}"
        )
        for view in customer_views:
            query = _prepared(workspace, con, view, now)
            written[view.name] += _write(
                con, view, query, now, aside / view.name / offline_file(workspace, view, number).name
            )

    for _ in map_buckets(one_bucket, buckets):
        pass
    con.execute(
        "CREATE OR REPLACE TEMP TABLE moments AS SELECT DISTINCT date_trunc('day', moment) AS moment FROM all_moments"
    )
    for view in workspace.views:
        if view.entity == "everyone" and view.stream is not None:
            con.execute(f"CREATE OR REPLACE TEMP TABLE events AS {events_query(workspace, view.stream, now)}")
            written[view.name] = _write(
                con, view, everyone_query(view), now, aside / view.name / offline_file(workspace, view, 0).name
            )
    con.close()
    shutil.rmtree(workspace.offline, ignore_errors=True)
    workspace.offline.parent.mkdir(parents=True, exist_ok=True)
    aside.rename(workspace.offline)
    return written


def compute_for(workspace: Workspace, moment: Micros, customers: Sequence[str]) -> dict[str, pa.Table]:
    """Compute the customer views of some customers at one moment, from what the lake holds of the time before it.

    Args:
        moment: microseconds since 1970; what the event log took by then must be in the lake.
        customers: ids; one without any row in the lake gets the row of a customer of whom nothing happened.

    Returns:
        By view the rows as the offline tables have them: entity, `event_timestamp`, fields, `created`. The view of
            attributes has
        none for customers without attributes.
    """
    con = lake.connect(workspace, linked_before=moment)
    found: dict[str, pa.Table] = {}
    try:
        ids = pa.array(sorted(set(customers)), pa.string())
        con.register("asked", pa.table({"customer_id": ids}))
        con.execute(
            f"CREATE TEMP TABLE moments AS SELECT customer_id, make_timestamptz({moment}::BIGINT) AS moment FROM asked"
        )
        for view in workspace.views:
            if view.entity == "customer":
                query = _prepared(workspace, con, view, moment)
                found[view.name] = con.execute(_rows(view, query, moment)).to_arrow_table()
    finally:
        con.close()
    return found


def _prepared(workspace: Workspace, con: duckdb.DuckDBPyConnection, view: View, now: Micros) -> str:
    """Return the query of a customer view for all in `moments`, whose events are laid ready for it."""
    if view.stream is None:
        return attributes_query(view)
    only = "WHERE customer_id IN (SELECT customer_id FROM moments)"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE events AS SELECT * FROM ({events_query(workspace, view.stream, now)}) {only}"
    )
    return customer_query(view)


def _rows(view: View, query: str, now: Micros) -> str:
    casts = ", ".join(_cast(name, dtype) for name, dtype in view.fields)
    return (
        f"SELECT {entity_key(view)}, event_timestamp, {casts}, make_timestamptz({now}::BIGINT) AS created FROM"
        f" ({query})"
    )


def _write(con: duckdb.DuckDBPyConnection, view: View, query: str, now: Micros, place: Path) -> int:
    place.parent.mkdir(parents=True, exist_ok=True)
    result = con.execute(
        f"COPY ({_rows(view, query, now)}) TO {literal(str(place))} (FORMAT parquet, COMPRESSION zstd)"
    ).fetchone()
    return int(result[0]) if result else 0


def _cast(name: str, dtype: str) -> str:
    value = whole_second(quoted(name)) if dtype == "time" else quoted(name)
    return f"{value}::{SQL_TYPES.get(dtype, 'DOUBLE[]')} AS {quoted(name)}"
