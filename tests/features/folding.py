"""Rows as the batch computes them, and a lake to compute them from, for tests of the fold."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from features.aggregate_kinds.kinds import AGGREGATES
from features.columns.rows import Dictionary, KeyedRow, OnlineRow, RowSchema
from features.columns.views import View
from features.common.timestamps import MICROSECONDS
from features.contact_history.history import key_of
from features.lake.tables import tables_of
from features.ledger.recent import RecentEvent
from features.workspace.workspace import Workspace

MOMENT = pa.timestamp("us", "UTC")
KINDS = {"VARCHAR": pa.string(), "DOUBLE": pa.float64(), "BIGINT": pa.int64(), "TIMESTAMPTZ": MOMENT}


def write_lake(workspace: Workspace, table: str, customers: Iterable[str], events: list[RecentEvent]) -> None:
    """Make a table of the lake hold these events and no others, as the shipper writes them."""
    fields = {field.name: KINDS[field.sql_type] for field in tables_of(workspace)[table].fields}
    columns: dict[str, Any] = {
        name: pa.array([e.fields.get(name) for e in events], kind) for name, kind in fields.items()
    }
    received = pa.array([event.received for event in events], pa.int64())
    columns |= {
        "customer_id": pa.array(list(customers), pa.string()),
        "time": pa.array([event.time for event in events], pa.int64()).cast(MOMENT),
        "imported_at": received.cast(MOMENT),
        "event_id": pa.array([f"e{event.key}" for event in events], pa.string()),
        "received": received,
    }
    place = workspace.lake / tables_of(workspace)[table].folder / "all.parquet"
    place.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table(columns), place)


def event_of(number: int, stream: str, time: int, received: int, **fields: float | str | None) -> RecentEvent:
    return RecentEvent(
        key_of(f"e{number}"),
        stream,
        time,
        received,
        {name: value for name, value in fields.items() if value is not None},
    )


def rows_of(plan: RowSchema, words: Dictionary, tables: dict[str, pa.Table]) -> dict[str, OnlineRow]:
    """By customer the row that an online store filled with these tables would give."""
    found: dict[str, OnlineRow] = {}
    for at, view in enumerate(plan.views):
        for stated in tables[view.name].to_pylist():
            row = found.setdefault(stated["customer_id"], plan.nobody())
            row.event_times[at] = _number(stated["event_timestamp"], words)
            _fill(plan, view, row, stated, words)
    return found


def _fill(plan: RowSchema, view: View, row: OnlineRow, stated: dict[str, Any], words: Dictionary) -> None:
    for scalar in view.scalars:
        row.numbers[plan.scalars[f"{view.name}.{scalar.name}"]] = _number(stated[scalar.name], words)
    for family in view.families:
        keys = np.array([words.id(text) for text in stated[family.keys_field]], np.uint32)
        values = [[np.nan if v is None else v for v in stated[family.field(m)]] for m in family.measures]
        row.families[plan.families[f"{view.name}.{family.name}"]] = KeyedRow(
            keys, np.array(values, np.float64).reshape(len(values), -1)
        )


def _number(value: Any, words: Dictionary) -> float:
    if isinstance(value, str):
        return float(words.id(value))
    if isinstance(value, datetime):
        return value.timestamp()
    return np.nan if value is None else float(value)


def shown(plan: RowSchema, words: Dictionary, row: OnlineRow) -> dict[str, Any]:
    """A row as values by name; families as a list of keys and, for each measure, the keys that have a value."""
    found: dict[str, Any] = {}
    for view in plan.views:
        for scalar in view.scalars:
            value = float(row.numbers[plan.scalars[f"{view.name}.{scalar.name}"]])
            text = scalar.dtype == "category" and value == value
            found[f"{view.name}.{scalar.name}"] = words.texts[int(value)] if text else None if value != value else value
        for family in view.families:
            name = f"{view.name}.{family.name}"
            by_key = row.families[plan.families[name]]
            keys = None if by_key is None else [words.texts[key] for key in by_key.keys]
            found[name] = keys
            for measure, values in zip(
                family.measures, [] if by_key is None else by_key.values.tolist(), strict=by_key is not None
            ):
                found[f"{name}.{measure.name}"] = {
                    key: value for key, value in zip(keys or [], values, strict=True) if value == value
                }
    return found


def agrees(aggregate: str, got: Any, wanted: Any) -> bool:
    """Whether the fold's value is the batch's, within what the aggregate says of itself."""
    tolerance = AGGREGATES[aggregate].tolerance if aggregate else 0.0
    if tolerance and isinstance(got, float) and isinstance(wanted, float):
        return abs(got - wanted) <= tolerance * abs(wanted)
    return bool(got == wanted)


def seconds(moment: int) -> float:
    return moment / MICROSECONDS
