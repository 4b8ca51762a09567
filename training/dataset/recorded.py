"""Recorded decisions as examples: rows with the columns as the model saw them when it decided.

Numbers are laid by the names of columns, whatever model recorded them; codes of categories become texts, and those
codes of the dictionary that is trained with. A column that a decision's model did not have is filled by the
point-in-time join, as imported history is; only what is relative to all offers considered stays missing there, since
the lake holds those that were shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from features.columns.catalogue import Catalogue
from features.columns.contract import Column
from features.common.moments import Micros
from features.lake import lake
from features.lake.offers import offers_of
from features.lake.recorded_bundles import RecordedBundle, is_same
from features.workspace.workspace import Workspace
from training.dataset.attribution import ROWS_ORDER, RecordedDecisions, attribute, decisions_of
from training.dataset.backfill import fill
from training.dataset.categories import Texts
from training.dataset.examples import Examples, NoExamples, strangers_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
ROWS_AT_ONCE = 50_000


@dataclass(frozen=True)
class RecordedCounts:
    """Recorded decisions that can be learnt from, and those of them with a success."""

    decisions: int
    successes: int


def count(workspace: Workspace, now: Micros) -> RecordedCounts:
    """Return how many recorded decisions there are to learn from, at a moment in microseconds since 1970."""
    con = lake.connect(workspace)
    try:
        attribute(con, workspace, Catalogue(offers_of(workspace)), now)
        taken = "SELECT DISTINCT decision_id FROM shown WHERE label"
        found = con.execute(
            f"SELECT count(*), count(s.decision_id) FROM made LEFT JOIN ({taken}) s USING (decision_id)"
        ).fetchone()
        assert found is not None
        return RecordedCounts(int(found[0]), int(found[1]))
    finally:
        con.close()


def recorded_of(
    workspace: Workspace,
    now: Micros,
    progress: Callable[[float], None] = lambda _: None,
    categories: dict[str, list[str]] | None = None,
) -> Examples:
    """Return all recorded decisions whose attribution window is closed, as examples. For which offers of them, see
    `attribution`.

    Args:
        now: microseconds since 1970; what happened after it is not known.
        progress: told the part that is done, 0 to 1.
        categories: the dictionary of a model that is to score the rows; one is made of the decisions when absent.

    Raises:
        NoExamples: there are none, or none had a success.
    """
    catalogue, contract = Catalogue(offers_of(workspace)), workspace.contract
    texts = Texts([column for column in contract.columns if column.dtype == "category"])
    con = lake.connect(workspace)
    try:
        attribute(con, workspace, catalogue, now)
        decisions = decisions_of(workspace, con)
        values = _values(contract.columns, con, decisions, texts)
        progress(0.5)
        fill(workspace, catalogue, con, decisions, values, texts)
    finally:
        con.close()
    places = {column.name: at for at, column in enumerate(contract.columns)}
    found = {
        column.name: texts.settle(
            values, places[column.name], column, catalogue, None if categories is None else categories[column.name]
        )
        for column in texts.columns
    }
    progress(1.0)
    return _with_strangers(workspace, catalogue, decisions, values, found)


def _values(
    columns: tuple[Column, ...], con: duckdb.DuckDBPyConnection, decisions: RecordedDecisions, texts: Texts
) -> Floats:
    """Return what the model saw, by the columns of today, NaN where its bundle had no such column; categories as
    numbers of `texts`.
    """
    values = np.full((len(decisions.offers), len(columns)), np.nan)
    bundle_of_row = np.repeat(decisions.bundle, np.diff(decisions.first))
    plans = [_plan(columns, bundle, texts) for bundle in decisions.bundles]
    seen = (
        "SELECT DISTINCT ON (r.decision_id, c.place) r.decision_id, c.place AS position, r.columns FROM recorded r JOIN"
        " catalogue c USING (offer_id)"
    )
    batches = con.execute(
        f"SELECT v.columns FROM shown s JOIN made m USING (decision_id) JOIN ({seen}) v USING (decision_id, position)"
        f" ORDER BY {ROWS_ORDER}"
    ).to_arrow_reader(ROWS_AT_ONCE)
    at = 0
    for batch in batches:
        lists: Any = batch.column(0)
        flat, offsets = np.asarray(lists.values.to_numpy(zero_copy_only=False), np.float64), np.asarray(lists.offsets)
        for number, (plan, width) in enumerate(plans):
            rows = np.flatnonzero(bundle_of_row[at : at + len(lists)] == number)
            if not len(rows):
                continue
            if (np.diff(offsets)[rows] != width).any():
                raise NoExamples(
                    "expected recorded decisions with as many numbers as their model has columns, got others: the lake"
                    " is damaged"
                )
            saw = flat[offsets[rows][:, None] + np.arange(width)]
            for target, source, codes in plan:
                column = saw[:, source]
                if codes is not None:
                    column = codes[np.where(np.isnan(column), len(codes) - 1, column).astype(np.int64)]
                values[at + rows, target] = column
        at += len(lists)
    return values


def _plan(
    columns: tuple[Column, ...], bundle: RecordedBundle, texts: Texts
) -> tuple[list[tuple[int, int, Floats | None]], int]:
    """Return where each column of today stands in a bundle, with the numbers of its texts, NaN last; and how many
    columns the bundle has.
    """
    places = {column.name: (at, column) for at, column in enumerate(bundle.contract.columns)}
    plan: list[tuple[int, int, Floats | None]] = []
    for target, column in enumerate(columns):
        source, was = places.get(column.name, (-1, None))
        if was is None or not is_same(column, was):
            continue
        codes = (
            np.append(texts.numbers(column.name, bundle.categories[column.name]), np.nan)
            if column.dtype == "category"
            else None
        )
        plan.append((target, source, codes))
    return plan, len(places)


def _with_strangers(
    workspace: Workspace,
    catalogue: Catalogue,
    decisions: RecordedDecisions,
    values: Floats,
    categories: dict[str, list[str]],
) -> Examples:
    """Return the examples, some of them twice: the copy as if nothing were known of the customer (see
    `cold_start_share`).
    """
    strange = strangers_of(workspace, decisions.ids)
    order = np.repeat(np.arange(len(decisions.ids)), np.where(strange, 2, 1))
    copies = np.append(False, order[1:] == order[:-1])
    sizes = np.diff(decisions.first)[order]
    decision = np.repeat(np.arange(len(order)), sizes)
    within = np.arange(len(decision)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rows = np.repeat(decisions.first[order], sizes) + within
    laid = values[rows]
    personal = [at for at, column in enumerate(workspace.contract.columns) if _is_personal(workspace, column)]
    laid[np.ix_(np.flatnonzero(copies[decision]), np.array(personal, np.int64))] = np.nan
    return Examples(
        workspace.contract,
        categories,
        [offer.offer_id for offer in catalogue.offers],
        laid,
        decisions.labels[rows],
        decision,
        decisions.offers[rows],
        [decisions.ids[at] for at in order],
        decisions.times[order],
        decisions.closes[order],
        copies,
    )


def _is_personal(workspace: Workspace, column: Column) -> bool:
    """Return whether a column is missing for a customer of whom nothing is known."""
    views = {view.name for view in workspace.views if view.entity == "customer"}
    return column.kind in ("customer", "pair") and column.source.split(".")[0] in views
