"""Windows: columns of customers at moments, computed by DuckDB over the lake, one customer bucket at a time.

A window of 30 days at moment t holds the events with t - 30 days <= time < t: an event at the very moment does not
count, so nothing that follows from a decision can be seen by it. Sums are exact: amounts are added as whole millionths,
which makes the result independent of the order of events, of threads and of engines.

For each view there is one query. Its rows are (entity, moment, scalars…, keys, values by key…), the offline table that
Feast joins and materializes.
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
from features.aggregate_kinds.kinds import AGGREGATES
from features.aggregates.partitions import bucket_of, map_buckets
from features.columns.streams import BUILT_IN_STREAMS, offer_categories
from features.columns.views import EVERYONE, KEYS_MAX, Family, Measure, Scalar, View
from features.common.moments import Micros
from features.config.features_file import Range, Where
from features.lake import lake
from features.lake.lake import literal, quoted
from features.lake.tables import SQL_TYPES, stream_table
from features.workspace.workspace import Workspace


def entity_key(view: View) -> str:
    """Name of the column that says whose row it is."""
    return "customer_id" if view.entity == "customer" else "everyone_id"


def offline_file(workspace: Workspace, view: View, bucket: int) -> Path:
    """Return where the rows of a view lie that belong to the customers of a bucket."""
    return workspace.offline / view.name / f"bucket-{bucket:04d}.parquet"


def condition(where: Where, event: str = "e") -> str:
    """SQL of a `where`; TRUE when it is empty."""
    parts = ["TRUE"]
    for field, wanted in where.items():
        column = f"{event}.{quoted(field)}"
        if isinstance(wanted, Range):
            if wanted.minimum is not None:
                parts.append(f"{column} >= '{wanted.minimum!r}'::DOUBLE")
            if wanted.below is not None:
                parts.append(f"{column} < '{wanted.below!r}'::DOUBLE")
        else:
            values = [wanted] if isinstance(wanted, str) else wanted
            parts.append(f"{column} IN ({', '.join(map(literal, values))})")
    return " AND ".join(parts)


def _within(seconds: int | None) -> str:
    return "TRUE" if seconds is None else f"e.time >= m.moment - to_seconds({seconds})"


def aggregate(kind: str, of: str | None, seconds: int | None, where: Where, whole: Where | None = None) -> str:
    """SQL of one aggregate over the joined events `e` at the moments `m`; NULL where no event counts."""
    window = f"WHERE e.time IS NOT NULL AND {_within(seconds)}"
    column = f"e.{quoted(of)}" if of else ""
    return AGGREGATES[kind].sql(column, f"{window} AND {condition(where)}", f"{window} AND {condition(whole or {})}")


def events_query(workspace: Workspace, stream: str, moment: Micros) -> str:
    """SQL of a stream's events as the event log had taken them before a moment; built-in streams get the categories of
    their offers.

    What came in at the moment or later is left out whenever it happened: decisions add it to the row of the moment
    themselves.
    """
    view = quoted(stream_table(stream).replace(".", "_"))
    given = offer_categories(workspace.features)
    there = f"(r.received IS NULL OR r.received < {moment})"
    if stream not in BUILT_IN_STREAMS or not given:
        return f"SELECT * FROM {view} r WHERE {there}"
    columns = ", ".join(f"o.{quoted(attribute)} AS {quoted(name)}" for name, attribute in given.items())
    return f"SELECT r.*, {columns} FROM {view} r LEFT JOIN {lake.ALL_OFFERS} o USING (offer_id) WHERE {there}"


def attributes_query(view: View) -> str:
    """Return the customer's attributes as they were at each moment: those of a moment are valid at it."""
    columns = ", ".join(
        f"{_or_zero(f'c.{quoted(scalar.name)}', scalar)} AS {quoted(scalar.name)}" for scalar in view.scalars
    )
    return (
        f"SELECT m.customer_id, m.moment AS event_timestamp, {columns} "
        "FROM moments m ASOF JOIN customers c ON c.customer_id = m.customer_id AND c.valid_from <= m.moment"
    )


def _or_zero(sql: str, scalar: Scalar) -> str:
    zero = "false" if scalar.dtype == "boolean" else "0"
    return f"coalesce({sql}, {zero})" if scalar.zero else sql


def customer_query(view: View) -> str:
    """Scalars and families of one stream, at each moment of each customer."""
    values = [(s, aggregate(s.aggregate, s.of, s.window_seconds, s.where, s.whole)) for s in view.scalars]
    scalars = [f"{_or_zero(sql, scalar)} AS {quoted(scalar.name)}" for scalar, sql in values]
    base = (
        f"SELECT m.customer_id, m.moment AS event_timestamp{''.join(', ' + s for s in scalars)} "
        "FROM moments m LEFT JOIN events e ON e.customer_id = m.customer_id AND e.time < m.moment GROUP BY ALL"
    )
    joins = []
    for number, family in enumerate(view.families):
        on = f"f{number}.customer_id = b.customer_id AND f{number}.moment = b.event_timestamp"
        joins.append(f"LEFT JOIN ({_family_query(family)}) f{number} ON {on}")
    lists = "".join(
        ", " + column for number, family in enumerate(view.families) for column in _lists(family, f"f{number}")
    )
    return f"SELECT b.*{lists} FROM ({base}) b {' '.join(joins)}"


def _lists(family: Family, alias: str) -> list[str]:
    """Return the list columns of a family; a customer without any key has empty lists, which are known to be empty."""
    columns = [f"coalesce({alias}.keys, []::VARCHAR[]) AS {quoted(family.keys_field)}"]
    columns += [
        f"coalesce({alias}.{quoted(m.name)}, []::DOUBLE[]) AS {quoted(family.field(m))}" for m in family.measures
    ]
    return columns


def _measure(measure: Measure) -> str:
    sql = aggregate(measure.aggregate, measure.of, measure.window_seconds, measure.where)
    return f"epoch({whole_second(sql)})" if AGGREGATES[measure.aggregate].dtype == "time" else f"({sql})::DOUBLE"


def _present(family: Family) -> str:
    """Keys that are kept: those with a value in any measure, be it zero."""
    return " OR ".join(f"{quoted(measure.name)} IS NOT NULL" for measure in family.measures)


def _family_query(family: Family) -> str:
    key = f"e.{quoted(family.key)}"
    measures = ", ".join(f"{_measure(m)} AS {quoted(m.name)}" for m in family.measures)
    lists = ", ".join(f"list({quoted(m.name)} ORDER BY key) AS {quoted(m.name)}" for m in family.measures)
    return (
        f"SELECT customer_id, moment, list(key ORDER BY key) AS keys, {lists} FROM (SELECT m.customer_id, m.moment,"
        f" {key} AS key, max(e.time) AS latest, {measures} FROM moments m JOIN events e ON e.customer_id ="
        f" m.customer_id AND e.time < m.moment WHERE {key} IS NOT NULL GROUP BY 1, 2, 3 QUALIFY row_number() OVER"
        f" (PARTITION BY m.customer_id, m.moment ORDER BY latest DESC, key) <= {KEYS_MAX}) WHERE {_present(family)}"
        " GROUP BY ALL"
    )


def everyone_query(view: View) -> str:
    """Families over the events of everybody at midnights: events are first folded into days, of which any window is a
    sum.
    """
    parts = []
    for family in view.families:
        key = f"e.{quoted(family.key)}"
        tiles, finals = [], []
        for measure in family.measures:
            tile, final = _tile(measure)
            tiles.append(f"{tile} AS {quoted(measure.name)}")
            finals.append(f"{final} AS {quoted(measure.name)}")
        lists = ", ".join(f"list({quoted(m.name)} ORDER BY key) AS {quoted(m.name)}" for m in family.measures)
        parts.append(
            f"(SELECT moment, list(key ORDER BY key) AS keys, {lists} FROM (SELECT m.moment, t.key, {', '.join(finals)}"
            f" FROM moments m JOIN (SELECT date_trunc('day', e.time) AS day, {key} AS key, {', '.join(tiles)} FROM"
            f" events e WHERE {key} IS NOT NULL GROUP BY ALL) t ON t.day < m.moment GROUP BY ALL) WHERE"
            f" {_present(family)} GROUP BY ALL)"
        )
    joins = " ".join(f"LEFT JOIN {part} f{number} ON f{number}.moment = m.moment" for number, part in enumerate(parts))
    lists = ", ".join(column for number, family in enumerate(view.families) for column in _lists(family, f"f{number}"))
    return f"SELECT {literal(EVERYONE)} AS everyone_id, m.moment AS event_timestamp, {lists} FROM moments m {joins}"


def _tile(measure: Measure) -> tuple[str, str]:
    """SQL of a measure within one day, and over the days of its window."""
    window = "TRUE" if measure.window_seconds is None else f"t.day >= m.moment - to_seconds({measure.window_seconds})"
    filters, column = f"WHERE {condition(measure.where)}", f"e.{quoted(measure.of)}" if measure.of else ""
    tiles = AGGREGATES[measure.aggregate].tiles
    if tiles is None:
        raise ValueError(f"expected an aggregate that days can be put together of, got {measure.aggregate!r}")
    return tiles.day(column, filters), tiles.window(f"t.{quoted(measure.name)}", window)


def moments_of(con: duckdb.DuckDBPyConnection, now: Micros) -> pa.Table:
    """When columns are needed: for each customer with a decision its moment, and for every customer now."""
    stamp = f"make_timestamptz({now}::BIGINT)"
    return con.sql(f"""
        SELECT DISTINCT customer_id, moment FROM (
            SELECT customer_id, time AS moment FROM decisions WHERE time <= {stamp}
            UNION ALL SELECT customer_id, {stamp} FROM ({_customers(con)})
        ) ORDER BY customer_id, moment
        """).to_arrow_table()


def _customers(con: duckdb.DuckDBPyConnection) -> str:
    """Everyone with a row anywhere: a customer needs no attributes to be known."""
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
