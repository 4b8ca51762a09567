"""Columns that are newer than a recorded decision: filled by the point-in-time join, as rows of imported history are.

The offers considered are not known any more, only those that were shown: what is relative to all of them stays missing.
"""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from features.columns.catalogue import Catalogue, category_text
from features.columns.contract import Column
from features.columns.layout import Layout
from features.columns.rows import Dictionary, RowSchema
from features.common.timestamps import MICROSECONDS
from features.common.types import OFFERS_CONSIDERED
from features.feature_store import point_in_time
from features.lake import lake
from features.lake.recorded_bundles import RecordedBundle, is_same
from features.workspace.workspace import Workspace
from training.dataset.attribution import RecordedDecisions
from training.dataset.categories import Texts
from training.dataset.examples import DAY

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def fill(
    workspace: Workspace,
    catalogue: Catalogue,
    con: duckdb.DuckDBPyConnection,
    decisions: RecordedDecisions,
    values: Floats,
    texts: Texts,
) -> None:
    """Columns that a decision's bundle did not have, as the point-in-time join knows them."""
    columns = workspace.contract.columns
    wanted = [_lacking(columns, bundle) for bundle in decisions.bundles]
    chosen = np.flatnonzero(np.array([bool(wanted[bundle]) for bundle in decisions.bundle]))
    if not len(chosen):
        return
    words, times = Dictionary(), decisions.times[chosen]
    joined = point_in_time.join(workspace, [decisions.customers[at] for at in chosen], times, words)
    days, day_of = np.unique(times // DAY * DAY, return_inverse=True)
    everyone = list(point_in_time.join(workspace, [], days, words, "everyone").rows())
    context = _context(workspace, con, decisions, chosen)
    for column in texts.columns:
        _meet(column, joined, context, catalogue, texts)
    layout = Layout(
        workspace.contract, joined.plan, RowSchema.of(workspace.views, "everyone"), catalogue, texts.of, words
    )
    of_day = [layout.offer_values(row, day / MICROSECONDS).copy() for row, day in zip(everyone, days, strict=True)]
    first_offer = len(layout.shared)
    first_pair = first_offer + len(layout.offer)
    for number, row in enumerate(joined.rows()):
        at, moment, day = chosen[number], times[number] / MICROSECONDS, day_of[number]
        rows = slice(decisions.first[at], decisions.first[at + 1])
        offers = decisions.offers[rows].astype(np.int32)
        laid = np.empty((len(offers), len(columns)))
        laid[:, :first_offer] = layout.shared_values(row, context[number], moment)
        laid[:, first_offer:first_pair] = of_day[day][offers]
        laid[:, first_pair:] = layout.pair_values(row, everyone[day], of_day[day], offers, moment)
        new = wanted[decisions.bundle[at]]
        values[rows, new] = laid[:, new]


def _lacking(columns: tuple[Column, ...], bundle: RecordedBundle) -> list[int]:
    had = {column.name: column for column in bundle.contract.columns}
    new = (at for at, column in enumerate(columns) if column.name not in had or not is_same(column, had[column.name]))
    return [at for at in new if not columns[at].relative]


def _context(
    workspace: Workspace, con: duckdb.DuckDBPyConnection, decisions: RecordedDecisions, chosen: Integers
) -> list[dict[str, Any]]:
    """Return what the requests said of the moment."""
    names = [name for name in workspace.features.context if name != OFFERS_CONSIDERED]
    stated = "".join(f", any_value({lake.quoted(name)})" for name in names)
    found = con.execute(
        f"SELECT decision_id{stated} FROM decisions SEMI JOIN made USING (decision_id) GROUP BY decision_id"
    ).fetchall()
    said = {row[0]: dict(zip(names, row[1:], strict=True)) for row in found}
    return [said.get(decisions.ids[at], {}) | {OFFERS_CONSIDERED: int(decisions.considered[at])} for at in chosen]


def _meet(
    column: Column,
    joined: point_in_time.OfflineHistory,
    context: list[dict[str, Any]],
    catalogue: Catalogue,
    texts: Texts,
) -> None:
    """Number the texts that a category column may have."""
    stated: list[Any]
    if column.kind == "customer":
        stated = joined.texts(column.source)
    elif column.kind == "context":
        stated = [column.default if said.get(column.source) is None else said[column.source] for said in context]
    else:
        stated = [offer.attributes.get(column.source) for offer in catalogue.offers]
    for text in dict.fromkeys(category_text(value) for value in stated):
        texts.number(column.name, text)
