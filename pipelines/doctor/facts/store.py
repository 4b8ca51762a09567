"""Facts of the doctor from the online store: a sample of the customers that should be in it."""

from __future__ import annotations

import asyncio
from typing import Any

import duckdb
import numpy as np

from features.aggregates import windows
from features.columns.rows import Dictionary, OnlineRow, RowSchema, StoreUnavailable
from features.columns.views import Scalar, View
from features.common.moments import Micros, Seconds, in_seconds
from features.common.timestamps import MICROSECONDS
from features.lake.lake import folder_reader
from features.lake.tables import stream_table
from features.lmdb_store.verify import verify
from features.online.engines import open_engine
from features.workspace.workspace import Workspace
from pipelines.doctor.facts.facts import ColumnFacts, SkewFacts, StoreFacts, ViewFacts
from pipelines.materialize import steps
from pipelines.materialize.refresh import whole_second
from pipelines.shipping import retention
from serving.state.freshness import Freshness

SAMPLED, COMPARED = 500, 20
TIMEOUT_MS = 5_000.0


def store(workspace: Workspace, now: Micros) -> StoreFacts | str:
    """Return the rows of a sample: how many there are, how old, what they say."""
    customers = _customers(workspace, SAMPLED)
    state = steps.state_of(workspace)
    materialized = steps.is_materialized(workspace) or bool(state.materialized)
    if workspace.store_kind.in_data_folder and materialized:
        verdict = verify(workspace.online, "online")
        if verdict.why:
            return StoreFacts(len(customers), 0, (), (), materialized, state.computed_at, {}, verdict.why)
    if not RowSchema.of(workspace.views).views:
        return "the workspace declares nothing of customers"
    if not customers:
        return StoreFacts(0, 0, (), (), materialized, state.computed_at, {})
    try:
        rows, _ = _rows(workspace, customers)
    except StoreUnavailable as lacks:
        if materialized:
            return StoreFacts(len(customers), 0, (), (), materialized, state.computed_at, {}, str(lacks))
        return StoreFacts(len(customers), 0, (), (), materialized, state.computed_at, {})
    plan = RowSchema.of(workspace.views)
    known = [row for row in rows if row.known]
    seconds = in_seconds(now)
    views = tuple(_view(at, view, plan, known, workspace, seconds) for at, view in enumerate(plan.views))
    columns = tuple(
        _column(scalar.name, np.array([row.numbers[plan.scalars[f"{view.name}.{scalar.name}"]] for row in known]))
        for view in plan.views
        for scalar in view.scalars
        if not scalar.beside
    )
    return StoreFacts(
        len(customers), len(known), views, columns, materialized, state.computed_at, _consents(workspace, plan, known)
    )


def _view(at: int, view: View, plan: RowSchema, rows: list[OnlineRow], workspace: Workspace, now: Seconds) -> ViewFacts:
    freshness = Freshness(workspace.contract, plan)
    limit = dict(freshness.limits).get(at, float("inf"))
    times = np.array([row.event_times[at] for row in rows])
    present = times[~np.isnan(times)]
    return ViewFacts(
        view.name,
        len(present),
        int((now - present > limit).sum()),
        float(present.max(initial=-np.inf)) if len(present) else np.nan,
    )


def _column(name: str, values: Any) -> ColumnFacts:
    there = values[~np.isnan(values)]
    return ColumnFacts(name, len(values), len(values) - len(there), len(np.unique(there)))


def _consents(workspace: Workspace, plan: RowSchema, rows: list[OnlineRow]) -> dict[str, tuple[int, int]]:
    found = {}
    slots = {name.partition(".")[2]: slot for name, slot in plan.scalars.items()}
    for purpose, consent in workspace.features.consent.items():
        answers = np.array([row.numbers[slots[consent.column]] for row in rows])
        denied = (answers == 0.0) | (np.isnan(answers) if consent.unknown == "denied" else False)
        found[purpose] = (len(rows), int(denied.sum()))
    return found


def _customers(workspace: Workspace, count: int) -> list[str]:
    """Some customers for whom features were computed: by a hash, so that they are the same each time and no particular
    ones.
    """
    folders = [workspace.offline / view.name for view in workspace.views if view.entity == "customer"]
    there = [folder_reader(folder) for folder in folders if any(folder.glob("*.parquet"))]
    if not there:
        return []
    con = duckdb.connect()
    try:
        ids = " UNION ".join(f"SELECT customer_id FROM {rows}" for rows in there)
        query = f"SELECT customer_id FROM ({ids}) ORDER BY md5(customer_id) LIMIT {count}"
        return [str(row[0]) for row in con.execute(query).fetchall()]
    finally:
        con.close()


def _rows(workspace: Workspace, customers: list[str]) -> tuple[list[OnlineRow], Dictionary]:
    """Return the rows as serving reads them."""

    async def read() -> tuple[list[OnlineRow], Dictionary]:
        engine = open_engine(
            workspace.online_url,
            workspace.online,
            workspace.views,
            TIMEOUT_MS,
            workspace.project,
            workspace.online_feast,
        )
        try:
            found = []
            for customer in customers:
                row = engine.read_now(customer) or await engine.read(customer)
                found.append(OnlineRow(row.numbers.copy(), row.families, row.event_times.copy()))
            return found, engine.words
        finally:
            engine.close()

    return asyncio.run(read())


def skew(workspace: Workspace) -> SkewFacts | str:
    """Compare scalars of some online rows, hidden ones included, with windows that are computed again.

    Each view is computed at its row's own moment, from what was received before it, whatever has happened, come late,
    been linked or left a window since. Columns over days that retention has let go since then cannot be compared.
    """
    customers = _customers(workspace, COMPARED)
    if not customers:
        return "no features were computed yet"
    rows, words = _rows(workspace, customers)
    plan = RowSchema.of(workspace.views)
    let_go = retention.hidden(workspace)
    moments: dict[Micros, list[tuple[int, View]]] = {}
    for at, row in enumerate(rows):
        for view, seconds in zip(plan.views, row.event_times, strict=True):
            if row.known:  # a view without a row has none because nothing was known at the moment of the others
                moments.setdefault(
                    _moment(workspace, float(np.nanmax(row.event_times) if np.isnan(seconds) else seconds)), []
                ).append((at, view))
    different: dict[str, None] = {}
    for moment, found in moments.items():
        computed = windows.compute_for(workspace, moment, [customers[at] for at, _ in found])
        lake = {view.name: {row["customer_id"]: row for row in computed[view.name].to_pylist()} for view in plan.views}
        for at, view in found:
            gone = let_go.get(stream_table(view.stream).replace(".", "/")) if view.stream else None
            for scalar in view.scalars:
                if gone is not None and gone.at >= moment and not _begins_after(scalar, moment, gone.before):
                    continue
                online = float(rows[at].numbers[plan.scalars[f"{view.name}.{scalar.name}"]])
                if not _same(online, lake[view.name].get(customers[at], {}).get(scalar.name), scalar.dtype, words):
                    different[f"{view.name}.{scalar.name}"] = None
    return SkewFacts(sum(row.known for row in rows), tuple(different))


def _moment(workspace: Workspace, seconds: float) -> Micros:
    """Return the moment of a stored row in microseconds: some stores keep whole seconds of it, and of the last
    computation we know more.
    """
    stored, computed = Micros(round(seconds * MICROSECONDS)), steps.state_of(workspace).computed_at
    return computed if stored == whole_second(computed) else stored


def _begins_after(scalar: Scalar, moment: int, before: int) -> bool:
    return scalar.window_seconds is not None and moment - scalar.window_seconds * MICROSECONDS >= before


def _same(online: float, computed: Any, dtype: str, words: Dictionary) -> bool:
    if computed is None or computed != computed:
        return online != online
    if dtype == "category":
        return online == online and words.texts[int(online)] == computed
    return online == (computed.timestamp() if dtype == "time" else float(computed))
