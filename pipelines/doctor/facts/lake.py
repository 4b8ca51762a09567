"""Facts of the doctor from the lake: what was decided and heard lately, and what models saw of it."""

from __future__ import annotations

import math

import duckdb
import numpy as np
from numpy.typing import NDArray

from features.aggregate_kinds.kinds import AGGREGATES
from features.common.moments import Micros
from features.common.timestamps import DAY_SECONDS, MICROSECONDS, parse_moment
from features.lake.lake import folder_reader, literal, quoted
from features.lake.recorded_bundles import read_bundle
from features.workspace.workspace import Workspace
from pipelines.doctor.facts.facts import ColumnFacts, DataFacts, DriftFacts, Traffic
from pipelines.importing import table_fit
from training.bundle import bundle as bundles

Floats = NDArray[np.float64]

HOURS = 24
DAYS_LOOKED_AT = 30
LATE_SECONDS, FUTURE_SECONDS = DAY_SECONDS, 60
ROWS_MAX = 5_000
"""Offers shown, and customers, that are looked at: the latest."""
ROWS_MIN = 200
"""Fewer rows on either side make no comparison."""
BINS = 10
SHARE_MIN = 1e-4
"""What an empty bin counts as, so that its logarithm exists."""


def traffic(workspace: Workspace, con: duckdb.DuckDBPyConnection, now: Micros) -> Traffic | str:
    """Return what happened in the last hours; the rows that events and journals brought."""
    since = now - HOURS * 3_600 * MICROSECONDS
    young = f"received > {since}"
    [(first,)] = con.execute("SELECT epoch_us(min(time)) FROM decisions WHERE received IS NOT NULL").fetchall()
    if first is None:
        return "no decision was recorded yet: nothing was served, or nothing was brought into the lake"
    [(decisions, shown)] = con.execute(
        f"SELECT count(DISTINCT decision_id), count(*) FROM decisions WHERE {young}"
    ).fetchall()
    [(impressions, named)] = con.execute(
        f"SELECT count(*), count(decision_id) FROM impressions WHERE {young}"
    ).fetchall()
    early = table_fit.early(workspace, con, young)
    impressions_early = early["impressions"].before if "impressions" in early else 0
    clamped = sum(table.clamped for table in early.values())
    [(outcomes, tied, unknown, outcomes_early)] = con.execute(
        "SELECT count(*), count(o.decision_id), count(o.decision_id) FILTER (WHERE d.decision_id IS NULL), count(*)"
        f" FILTER (WHERE o.time < d.time) FROM (SELECT decision_id, time FROM outcomes WHERE {young}) o LEFT JOIN"
        " (SELECT decision_id, min(time) AS time FROM decisions GROUP BY ALL) d ON d.decision_id = o.decision_id"
    ).fetchall()
    events = (
        f"SELECT received, epoch_us(time) AS happened FROM impressions WHERE {young} UNION ALL SELECT received,"
        f" epoch_us(time) FROM outcomes WHERE {young}"
    )
    [(count, late, future)] = con.execute(
        f"SELECT count(*), count(*) FILTER (WHERE received - happened > {LATE_SECONDS * MICROSECONDS}),"
        f" count(*) FILTER (WHERE happened - received > {FUTURE_SECONDS * MICROSECONDS}) FROM ({events})"
    ).fetchall()
    missing = _days_missing(con, now)
    told = (outcomes, tied, unknown, outcomes_early, named, impressions_early, clamped)
    return Traffic(HOURS, decisions, shown, impressions, *told, count, late, future, first, missing)


def data(workspace: Workspace, con: duckdb.DuckDBPyConnection) -> DataFacts | str:
    """Return how the tables of the lake fit together."""
    shared = table_fit.shared(workspace, con)
    if not shared:
        return "the lake has no rows yet"
    return DataFacts(
        tuple(shared), table_fit.early(workspace, con, "event_id IS NULL"), table_fit.unknown_zones(workspace, con)
    )


def _days_missing(con: duckdb.DuckDBPyConnection, now: Micros) -> tuple[str, ...]:
    since = now - DAYS_LOOKED_AT * DAY_SECONDS * MICROSECONDS
    day = "make_timestamp(epoch_us(time))::DATE"
    found = con.execute(
        f"WITH days AS (SELECT DISTINCT {day} AS day FROM decisions WHERE received IS NOT NULL AND time >"
        f" make_timestamptz({since})) SELECT range::DATE::VARCHAR FROM range((SELECT min(day) FROM days)::TIMESTAMP,"
        " (SELECT max(day) FROM days)::TIMESTAMP, INTERVAL 1 DAY) WHERE range::DATE NOT IN (SELECT day FROM days)"
        " ORDER BY 1"
    ).fetchall()
    return tuple(row[0] for row in found)


def drift(workspace: Workspace, con: duckdb.DuckDBPyConnection, now: Micros) -> DriftFacts | str:
    """Return the columns that the bundle which serves has recorded lately, beside those that its training saw."""
    place = bundles.current(workspace.bundles)
    if place is None:
        return "nothing was published yet"
    bundle = bundles.read(place)
    kept = read_bundle(workspace, bundle.id)
    contract = bundle.contract if kept is None else kept.contract
    of_bundle = f"FROM recorded WHERE bundle = {literal(bundle.id)} AND len(columns) = {len(contract.columns)}"
    [(decisions,)] = con.execute(f"SELECT count(DISTINCT decision_id) {of_bundle}").fetchall()
    if not decisions:
        return "the model that serves has recorded no decision yet"
    seen = _columns(con, f"SELECT columns {of_bundle} ORDER BY time DESC, decision_id, position LIMIT {ROWS_MAX}")
    facts = tuple(_column(name, seen[:, at]) for at, name in enumerate(contract.names))
    # Of each customer one decision: a customer who asks often is no sign of a change.
    newest = "QUALIFY row_number() OVER (PARTITION BY customer_id ORDER BY time DESC, decision_id, position) = 1"
    people = _columns(
        con, f"SELECT columns {of_bundle} AND customer_id IS NOT NULL {newest} ORDER BY time DESC LIMIT {ROWS_MAX}"
    )
    _trained_at(workspace, con, parse_moment(bundle.manifest.created_at))
    moved, growing = dict[str, float](), _growing(workspace)
    for at, column in enumerate(contract.columns):
        if (
            column.kind == "customer"
            and column.dtype == "number"
            and column.name not in growing
            and len(people) >= ROWS_MIN
        ):
            expected = _trained_on(workspace, con, column.source)
            if len(expected) >= ROWS_MIN:
                moved[column.name] = stability_index(expected, people[:, at])
    return DriftFacts(decisions, facts, moved, len(moved), len(people))


def _columns(con: duckdb.DuckDBPyConnection, query: str) -> Floats:
    rows = con.execute(query).fetchnumpy()["columns"]
    return np.array([np.ma.filled(row, np.nan) for row in rows], np.float64).reshape(len(rows), -1)


def _growing(workspace: Workspace) -> set[str]:
    """Columns that only ever go one way as time goes by: counts, sums and extremes over all time."""
    scalars = [scalar for view in workspace.views for scalar in view.scalars]
    return {
        scalar.name
        for scalar in scalars
        if scalar.aggregate and scalar.window_seconds is None and AGGREGATES[scalar.aggregate].grows
    }


def _column(name: str, values: Floats) -> ColumnFacts:
    missing = int(np.isnan(values).sum())
    return ColumnFacts(name, len(values), missing, len(np.unique(values[~np.isnan(values)])))


def _trained_at(workspace: Workspace, con: duckdb.DuckDBPyConnection, trained: int) -> None:
    """Return a table of the moments of decisions before the training for which columns were computed: those that
    training could have seen.
    """
    folders = [workspace.offline / view.name for view in workspace.views if view.entity == "customer"]
    there = [folder_reader(folder) for folder in folders if any(folder.glob("*.parquet"))]
    none = "SELECT NULL::VARCHAR AS customer_id, NULL::TIMESTAMPTZ AS event_timestamp WHERE false"
    computed = " UNION ".join([none, *(f"SELECT customer_id, event_timestamp FROM {rows}" for rows in there)])
    con.execute(
        "CREATE OR REPLACE TEMP TABLE trained_at AS SELECT DISTINCT d.customer_id, d.time AS event_timestamp FROM"
        f" decisions d SEMI JOIN ({computed}) c ON c.customer_id = d.customer_id AND c.event_timestamp = d.time WHERE"
        f" d.time <= make_timestamptz({trained})"
    )


def _trained_on(workspace: Workspace, con: duckdb.DuckDBPyConnection, source: str) -> Floats:
    """Values of a customer column at those moments; NaN where there was none."""
    view, _, name = source.partition(".")
    folder = workspace.offline / view
    if not any(folder.glob("*.parquet")):
        return np.empty(0)
    offline = folder_reader(folder)
    query = (
        f"SELECT f.{quoted(name)}::DOUBLE AS value FROM trained_at LEFT JOIN {offline} f USING (customer_id,"
        " event_timestamp)"
    )
    found: Floats = np.ma.filled(np.ma.asarray(con.execute(query).fetchnumpy()["value"], np.float64), np.nan)
    return found


def stability_index(expected: Floats, seen: Floats) -> float:
    """Population stability index: the sum over bins of (p - q) ln(p / q); bins are deciles of what was expected, and
    what is missing.

    From 0 (the same) up; 0.25 is commonly taken for another distribution.
    """
    edges = (
        np.unique(np.nanquantile(expected, np.linspace(0, 1, BINS + 1)[1:-1]))
        if not np.isnan(expected).all()
        else np.empty(0)
    )

    def shares(values: Floats) -> Floats:
        at = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="left"))
        found: Floats = np.bincount(at, minlength=len(edges) + 2) / len(values)
        return np.maximum(found, SHARE_MIN)

    p, q = shares(seen), shares(expected)
    index = float(((p - q) * np.log(p / q)).sum())
    return index if math.isfinite(index) else 0.0
