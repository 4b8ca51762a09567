"""The SQL of windows: the query of a view over the events `e` at the moments `m`, for DuckDB."""

from __future__ import annotations

from features.aggregate_kinds.kind import whole_second
from features.aggregate_kinds.kinds import AGGREGATES
from features.columns.streams import BUILT_IN_STREAMS, offer_categories
from features.columns.views import EVERYONE, KEYS_MAX, Family, Measure, Scalar, View
from features.common.moments import Micros
from features.config.features_file import Range, Where
from features.lake import lake
from features.lake.lake import literal, quoted
from features.lake.tables import stream_table
from features.workspace.workspace import Workspace


def condition(where: Where, event: str = "e") -> str:
    """Return the SQL of a `where`; TRUE when it is empty."""
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
    """Return the SQL of one aggregate over the joined events `e` at the moments `m`; NULL where no event counts."""
    window = f"WHERE e.time IS NOT NULL AND {_within(seconds)}"
    column = f"e.{quoted(of)}" if of else ""
    return AGGREGATES[kind].sql(column, f"{window} AND {condition(where)}", f"{window} AND {condition(whole or {})}")


def events_query(workspace: Workspace, stream: str, moment: Micros) -> str:
    """Return the SQL of a stream's events as the event log had taken them before a moment.

    Built-in streams get the categories of their offers.

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
    """Return the SQL of scalars and families of one stream, at each moment of each customer."""
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
    """Return the filter of stored keys: those with a value in any measure, be it zero."""
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
    """Return the SQL of families over the events of everybody at midnights.

    Events are first put together by day; the values of days make the value of any window (`Tiles`).
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
    """Return the SQL of a measure within one day, and over the days of its window."""
    window = "TRUE" if measure.window_seconds is None else f"t.day >= m.moment - to_seconds({measure.window_seconds})"
    filters, column = f"WHERE {condition(measure.where)}", f"e.{quoted(measure.of)}" if measure.of else ""
    tiles = AGGREGATES[measure.aggregate].tiles
    if tiles is None:
        raise ValueError(f"expected an aggregate that days can be put together of, got {measure.aggregate!r}")
    return tiles.day(column, filters), tiles.window(f"t.{quoted(measure.name)}", window)
