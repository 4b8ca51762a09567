"""What was known at past moments: Feast's point-in-time join on its DuckDB offline store, as rows that the layout
reads.

A moment is joined once for each customer, however many offers were considered at it: rows of one moment cannot be lost
or mixed up, and the same layout that serves lays the offers beside the customer.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from features.aggregates.windows import entity_key
from features.columns.rows import Dictionary, KeyedRow, OnlineRow, RowSchema
from features.columns.views import EVERYONE, Family, View
from features.common.timestamps import MICROSECONDS
from features.feature_store.definitions import open_store
from features.workspace.workspace import Workspace

_EVENT_TIME = "event_timestamp"


@dataclass(frozen=True)
class OfflineHistory:
    """Joined rows of one entity, in the order of the moments that were asked for."""

    plan: RowSchema
    words: Dictionary
    table: pa.Table
    moments: NDArray[np.int64]

    def __len__(self) -> int:
        return self.table.num_rows

    def rows(self) -> Iterator[OnlineRow]:
        """Return one row for each moment, as the online store would have given it at that moment; without what is
        hidden beside columns.
        """
        scalars = np.full((len(self), len(self.plan.scalars)), np.nan)
        times = np.full((len(self), len(self.plan.views)), np.nan)
        slot = 0
        families: list[list[KeyedRow | None]] = []
        for number, view in enumerate(self.plan.views):
            present = self._present(view)
            times[present, number] = self.moments[present] / MICROSECONDS
            for scalar in view.scalars:
                if not scalar.beside:
                    scalars[:, slot] = self._scalar(_joined(view, scalar.name), scalar.dtype)
                slot += 1
            families += [
                [None] * len(self) if family.beside else self._family(view, family) for family in view.families
            ]
        for row in range(len(self)):
            yield OnlineRow(scalars[row], [family[row] for family in families], times[row])

    def texts(self, source: str) -> list[str | None]:
        """Return all texts of a category column, `view.scalar`, one a row."""
        view, _, scalar = source.partition(".")
        found: list[str | None] = self.table.column(f"{view}__{scalar}").to_pylist()
        return found

    def _present(self, view: View) -> NDArray[np.bool_]:
        """Return whether the join found a row. One with nothing but missing values counts as none: no column can tell
        the difference.
        """
        found = np.zeros(len(self), bool)
        for name in _shown(view):
            found |= np.asarray(self.table.column(_joined(view, name)).is_valid())
        return found

    def _scalar(self, name: str, dtype: str) -> NDArray[np.float64]:
        column = self.table.column(name)
        if dtype == "category":
            return self._ids(column.combine_chunks())
        if dtype == "time":
            column = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            return np.asarray(column.cast(pa.float64()).to_numpy()) / MICROSECONDS
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)

    def _ids(self, texts: Any) -> NDArray[np.float64]:
        """Word ids of an array of texts, NaN for null."""
        coded = texts.dictionary_encode()
        ids = np.array([self.words.id(text) for text in coded.dictionary.to_pylist()], np.float64)
        at = np.asarray(coded.indices.cast(pa.float64()).to_numpy(zero_copy_only=False))
        out = np.full(len(at), np.nan)
        known = ~np.isnan(at)
        out[known] = ids[at[known].astype(np.int64)]
        return out

    def _family(self, view: View, family: Family) -> list[KeyedRow | None]:
        keys: Any = self.table.column(_joined(view, family.keys_field)).combine_chunks()
        measures: list[Any] = [
            self.table.column(_joined(view, family.field(m))).combine_chunks() for m in family.measures
        ]
        ids = self._ids(keys.values).astype(np.uint32)
        starts = np.asarray(keys.offsets)
        flat = [
            (np.asarray(m.values.to_numpy(zero_copy_only=False), np.float64), np.asarray(m.offsets)) for m in measures
        ]
        rows: list[KeyedRow | None] = []
        for row, found in enumerate(np.asarray(keys.is_valid())):
            if not found:
                rows.append(None)
                continue
            values = np.stack([part[offsets[row] : offsets[row + 1]] for part, offsets in flat])
            rows.append(KeyedRow(ids[starts[row] : starts[row + 1]], values))
        return rows


def _shown(view: View) -> list[str]:
    hidden = view.hidden
    return [name for name, _ in view.fields if name not in hidden]


def _joined(view: View, field: str) -> str:
    return f"{view.name}__{field}"


def join(
    workspace: Workspace, customers: list[str], moments: NDArray[np.int64], words: Dictionary, entity: str = "customer"
) -> OfflineHistory:
    """Return what was known of customers at moments.

    Args:
        customers: ids, one a moment; ignored for the entity `everyone`.
        moments: microseconds since 1970, shape (n,).
        words: takes the texts of categories and keys.

    Returns:
        Rows in the same order. A customer who was not known at the moment, or whose row has expired, is a row of
        missing values.
    """
    plan = RowSchema.of(workspace.views, entity)
    if not plan.views:
        return OfflineHistory(plan, words, pa.table({"row": pa.array(np.arange(len(moments)))}), moments)
    asked = pd.DataFrame(
        {entity_key(plan.views[0]): customers if entity == "customer" else EVERYONE}, index=range(len(moments))
    )
    asked[_EVENT_TIME] = pd.to_datetime(moments, unit="us", utc=True).astype("datetime64[us, UTC]")
    asked["row"] = np.arange(len(moments))
    references = [f"{view.name}:{name}" for view in plan.views for name in _shown(view)]
    store = open_store(workspace)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's own, of the versions beneath it
        joined = store.get_historical_features(entity_df=asked, features=references, full_feature_names=True).to_arrow()
    if joined.num_rows != len(moments):
        got = f"got {joined.num_rows}: the offline store is not to be trusted"
        raise RuntimeError(f"expected one joined row for each of {len(moments)} moments, {got}")
    return OfflineHistory(plan, words, joined.sort_by("row"), moments)
