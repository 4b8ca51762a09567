"""The plan of a ramp, and what a lake says of it."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from features.config.experiments import Ramp
from features.lake import lake
from features.lake.loop_tables import EXPOSURES
from features.lake.tables import tables_of
from features.workspace.ramps import Evidence, RampState
from features.workspace.workspace import Workspace
from pipelines.ramps.evidence import evidence_of
from pipelines.ramps.steps import Step, next_step
from tests.pipelines.experiment_lakes import DAY, EMPTY, START, Rows, lake_of, question

PLAN = Ramp(arm="louder", hold="2d", window="2d", units=300)
STEPS = PLAN.steps


def known(rows: Rows, standing: RampState | None = None, plan: Ramp = PLAN) -> Evidence:
    """What a made-up lake says of a ramp that began at `START`, and is at 10 % since its tenth day."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    given_ = lake_of(rows)
    for name in EMPTY:
        con.register("given", given_.execute(f"SELECT * FROM {name}").to_arrow_table())
        con.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
        con.unregister("given")
    return evidence_of(con, question(window_seconds=2 * 86_400), standing or at(0.1), "louder", plan)


def at(share: float, since: int = START + 10 * DAY) -> RampState:
    return RampState(share, "rising", START if share <= 0.5 else since, since, frozenset(), 3)


def step(rows: Rows, plan: Ramp = PLAN) -> Step:
    """What becomes of the ramp on the twentieth day, as it was known on the fortieth."""
    return next_step(plan, at(0.1), known(rows, plan=plan), START + 20 * DAY)


def fill(workspace: Workspace, rows: Rows) -> None:
    """Put made-up rows into the workspace's lake; the label's outcome is `accepted`."""
    con = lake.connect(workspace)
    try:
        outcomes = [
            row | {"type": {"conversion": "accepted"}.get(row["type"], row["type"])} for row in rows["outcomes"]
        ]
        for table, given_ in ((EXPOSURES, rows["exposures"]), (tables_of(workspace)["outcomes"], outcomes)):
            con.register("given", pa.Table.from_pylist(given_, pa.schema(list(EMPTY[table.name].items()))))
            lake.add(workspace, con, table, "given", "made")
            con.unregister("given")
    finally:
        con.close()
