"""Rows of customers who were forgotten, in files that a business goes on importing: what happened before that is
refused.
"""

from __future__ import annotations

import duckdb

from features.events.erased import marks_of
from features.events.log import event_folder
from features.lake.lake import literal, quoted
from features.lake.tables import Table
from features.workspace.workspace import Workspace

FORGOTTEN = "the customer was forgotten"
IDS_A_STEP = 100_000


def refuse_forgotten(con: duckdb.DuckDBPyConnection, workspace: Workspace, table: Table) -> None:
    """Give the rows of `judged` that are of before their customer was forgotten that reason; a row of later is a new
    customer's.

    Raises:
        LogUnavailable: the event log, which knows who was forgotten, cannot be read.
    """
    if table.time is None or all(field.name != "customer_id" for field in table.fields):
        return
    marks = marks_of(event_folder(workspace.data))
    if not marks.at:
        return
    met: list[tuple[str, int]] = []
    asked = con.execute("SELECT DISTINCT customer_id FROM judged WHERE _reason IS NULL")
    while found := asked.fetchmany(IDS_A_STEP):
        met += [(unit, at) for (unit,) in found if (at := marks.forgotten_at(unit)) is not None]
    if met:
        rows = ", ".join(f"({literal(unit)}, {at})" for unit, at in met)
        theirs = f"j.customer_id = f.unit AND epoch_us(j.{quoted(table.time)}) < f.moment"
        con.execute(
            f"UPDATE judged j SET _reason = {literal(FORGOTTEN)} FROM (VALUES {rows}) AS f(unit, moment) WHERE"
            f" j._reason IS NULL AND {theirs}"
        )
