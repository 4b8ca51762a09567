"""Rows on their way into the lake: gathered by table and day, written aside as Parquet, then moved in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.common.files import sync
from features.common.timestamps import DAY_SECONDS, MICROSECONDS, from_microseconds
from features.lake.files import writing
from features.lake.loop_tables import LOOP_TABLES
from features.lake.tables import FIXED, Table, tables_of
from features.workspace.workspace import Workspace

TYPES: dict[str, pa.DataType] = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "category": pa.string(),
    "boolean": pa.bool_(),
    "time": pa.timestamp("us", "UTC"),
    "texts": pa.list_(pa.string()),
    "numbers": pa.list_(pa.float64()),
}
_STAMP = (("event_id", pa.string()), ("received", pa.int64()))

Row = tuple[Any, ...]
Step = Callable[[str], None]
"""Told each step before it is taken."""


class Part:
    """Rows of one table of one day, as tuples in the order of the table's columns, `event_id` and `received` last."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.more: dict[int, Mapping[str, float | str | None]] = {}
        """By position, what rows have beyond the declared columns."""


class LakeParts:
    """Rows by table and day (UTC)."""

    def __init__(self, workspace: Workspace) -> None:
        self._tables = {table.name: table for table in (*tables_of(workspace).values(), *LOOP_TABLES)}
        self._parts: dict[tuple[str, str], Part] = {}

    def add(self, table: str, row: Row, at: int, more: Mapping[str, float | str | None] | None = None) -> None:
        """Add a row.

        Args:
            at: its time, microseconds since 1970.
            more: values of columns that are not declared.
        """
        key = (table, _day(at // (DAY_SECONDS * MICROSECONDS)))
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = Part()
        if more:
            part.more[len(part.rows)] = more
        part.rows.append(row)

    def rows(self) -> dict[str, int]:
        """Return how many rows there are, by table."""
        counted: dict[str, int] = {}
        for (table, _), part in self._parts.items():
            counted[table] = counted.get(table, 0) + len(part.rows)
        return counted

    def table(self, name: str, at: int) -> pa.Table | None:
        """Return the rows of one table as the lake has them, of all days; None where there are none.

        Args:
            at: `imported_at`, microseconds since 1970.
        """
        found = [self._arrow(table, part, at) for (table, _), part in self._parts.items() if table == name]
        return pa.concat_tables(found, promote_options="default") if found else None

    def write(self, workspace: Workspace, name: str, at: int, replace: bool, step: Step) -> None:
        """Write all rows into the lake as files called `name`, one a table and day; in place of files that are called
        so.

        Each is written aside and made durable before the first is moved in.

        Args:
            at: `imported_at`, microseconds since 1970.
            replace: False leaves files alone that are there already: they hold more than can be read again.
        """
        aside = workspace.data / "aside" / "shipping"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        moves: list[tuple[Path, Path]] = []
        for number, ((table, day), part) in enumerate(sorted(self._parts.items())):
            folder = Table(table, None, ()).folder
            target = workspace.lake / folder / f"day={day}" / name
            if not replace and target.exists():
                continue
            step(f"write {target.name} of {table}")
            file = aside / f"{number}.parquet"
            pq.write_table(self._arrow(table, part, at), file, compression="zstd")
            sync(file)
            moves.append((file, target))
        with writing(workspace.lake):
            for file, target in moves:
                step(f"move {target.name} of {target.parent.parent.name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                file.rename(target)
            for day_folder in {target.parent for _, target in moves}:
                sync(day_folder)
                sync(day_folder.parent)
        shutil.rmtree(aside)

    def _arrow(self, name: str, part: Part, at: int) -> pa.Table:
        declared = self._tables.get(name)
        fields = FIXED["streams"] if declared is None else declared.fields  # a stream that is not declared any more
        columns = [*((field.name, TYPES[field.dtype]) for field in fields), *_STAMP]
        arrays = {
            key: _array(values, kind) for (key, kind), values in zip(columns, zip(*part.rows, strict=True), strict=True)
        }
        for key in sorted({key for more in part.more.values() for key in more} - arrays.keys()):
            arrays[key] = _any_array([part.more.get(position, {}).get(key) for position in range(len(part.rows))])
        arrays["imported_at"] = pa.array(np.full(len(part.rows), at), pa.timestamp("us", "UTC"))
        return pa.table(arrays)


def _array(values: Row, kind: pa.DataType) -> Any:
    if kind == TYPES["numbers"]:
        offsets: Any = pa.array(np.concatenate([[0], np.cumsum([len(row) for row in values])]), pa.int32())
        return pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(values), pa.float64()))
    return pa.array(values, kind)


def _any_array(values: list[float | str | None]) -> Any:
    """Return numbers where all are, else texts."""
    if any(isinstance(value, str) for value in values):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    return pa.array(values, pa.float64())


@lru_cache(maxsize=1024)
def _day(number: int) -> str:
    return from_microseconds(number * DAY_SECONDS * MICROSECONDS).date().isoformat()
