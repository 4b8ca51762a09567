"""An experiment's data for a warehouse: who was exposed to which arm, and the arms that all known units have, as one
file each.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from features.common.errors import Failure
from features.common.files import as_given
from features.common.types import ACCOUNT, ANONYMOUS
from features.config.experiments import Experiment
from features.lake.lake import connect, literal, select
from features.lake.loop_tables import EXPOSURES, LINKS
from features.lake.tables import tables_of
from features.workspace.workspace import Workspace
from pipelines.shipping.ship import ship
from serving.api.preview import Enquiry
from serving.assignment.assignment import Units
from serving.reload.reloader import Reloader
from training.bundle.bundle import BadBundle

Format = Literal["parquet", "ndjson"]
Tell = Callable[[str], None]

_FIELDS: list[pa.Field[Any]] = [
    *(pa.field(name, pa.string()) for name in ("unit", "experiment", "arm", "reason")),
    *(pa.field(name, pa.float64()) for name in ("probability", "covered")),
    pa.field("bucket", pa.int64()),
    pa.field("group", pa.string()),
    pa.field("time", pa.timestamp("us", "UTC")),
]
ASSIGNMENTS = pa.schema(_FIELDS)
"""A row a unit, of the moment `time`. Without an arm it is not in the experiment, and `reason` says why."""
UNIT = "coalesce(unit, customer_id)"
"""SQL of what was randomized, of a row of `exposures`."""
TOGETHER = 64
"""Units that are asked for at a time: a store that is far away answers them together."""


class NoSuchExperiment(Failure):
    """The workspace does not have the experiment."""


def write_exposures(workspace: Workspace, key: str, form: Format, file: Path, tell: Tell) -> int:
    """Write a row an exposure, in the order of time; what waits in journals and event log is shipped first. Returns the
    number of rows.

    Raises:
        NoSuchExperiment: neither the workspace nor the lake has it.
        OSError: the file cannot be written.
    """
    tell("ship")
    ship(workspace)
    tell("write")
    con = (
        duckdb.connect()
    )  # not the lake's: its views show linked units as customers, and an experiment's units are its own
    con.execute("SET TimeZone = 'UTC'")
    rows = f"SELECT * FROM ({select(workspace, EXPOSURES)}) WHERE experiment = {literal(key)}"
    if key not in workspace.experiments.experiments and not con.execute(f"SELECT 1 FROM ({rows}) LIMIT 1").fetchone():
        raise _unknown(workspace, key)
    columns = f"{UNIT} AS unit, experiment, arm, reason, probability, covered, decision_id, event_id, time"
    return _copy(con, f"SELECT {columns} FROM ({rows}) ORDER BY time, unit, event_id", form, file)


def write_assignments(workspace: Workspace, key: str, form: Format, file: Path, tell: Tell) -> int:
    """Write a row a unit that is known: the arm that it has now, by the context's defaults. Nothing is written down,
    nobody is exposed.

    Returns:
        Number of rows.

    Raises:
        NoSuchExperiment: the workspace does not have it.
        BadBundle: nothing was published, so that nothing says what is known of a customer.
        OSError: the file cannot be written.
    """
    entry = workspace.experiments.experiments.get(key)
    if entry is None:
        raise _unknown(workspace, key)
    tell("units")
    units = _units(workspace, key, entry)
    tell("assign")
    table = pa.Table.from_pylist(asyncio.run(_assigned(workspace, key, units)), ASSIGNMENTS)
    tell("write")
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.register("assigned", table)
    return _copy(con, "SELECT * FROM assigned ORDER BY unit", form, file)


async def _assigned(workspace: Workspace, key: str, units: list[Units]) -> list[dict[str, Any]]:
    reloader = Reloader(workspace)
    try:
        reloader.load()
        if reloader.loaded is None:
            raise BadBundle(f"expected a published model, got none: {reloader.refusal}")
        enquiry, loaded, rows = Enquiry(reloader), reloader.loaded, {}
        for at in range(0, len(units), TOGETHER):
            for answered in await asyncio.gather(
                *(enquiry.ask(loaded, one, {}, key) for one in units[at : at + TOGETHER])
            ):
                one, unit = answered.of(key), loaded.experiment_states.unit(key, answered.units)
                # Of an account it is told what it has for those of its customers whom no group keeps out.
                if unit not in ("", ANONYMOUS, ACCOUNT) and (unit not in rows or one.arm is not None):
                    rows[unit] = {
                        "unit": unit,
                        "experiment": key,
                        "arm": one.arm,
                        "reason": one.reason,
                        "probability": one.probability,
                        "covered": one.covered,
                        "bucket": one.bucket,
                        "group": answered.assigned.group.name,
                        "time": reloader.clock(),
                    }
        return list(rows.values())
    finally:
        reloader.close()


def _units(workspace: Workspace, key: str, entry: Experiment) -> list[Units]:
    """Units of the experiment's kind that the lake knows; of accounts also those that only exposures name."""
    with connect(workspace) as con:
        if entry.unit == "anonymous":
            tables = tables_of(workspace)
            seen = " UNION ".join(
                [
                    f"SELECT {UNIT} AS unit FROM ({select(workspace, EXPOSURES)})",
                    *(
                        f"SELECT customer_id FROM ({select(workspace, tables[name])})"
                        for name in ("decisions", "impressions")
                    ),
                ]
            )
            query = f"SELECT DISTINCT unit FROM ({seen} UNION SELECT unit FROM ({select(workspace, LINKS)}))"
            query += f" WHERE starts_with(unit, {literal(ANONYMOUS)}) ORDER BY 1"
            return [Units(anonymous=unit[1:]) for (unit,) in con.execute(query).fetchall()]
        found = [
            Units(customer=unit)
            for (unit,) in con.execute("SELECT DISTINCT customer_id FROM customers ORDER BY 1").fetchall()
        ]
        if entry.unit == "account":
            query = f"SELECT DISTINCT {UNIT} FROM ({select(workspace, EXPOSURES)}) WHERE experiment = {literal(key)}"
            query += f" AND starts_with({UNIT}, {literal(ACCOUNT)}) ORDER BY 1"
            found += [Units(account=unit[1:]) for (unit,) in con.execute(query).fetchall()]
        return found


def _copy(con: duckdb.DuckDBPyConnection, query: str, form: Format, file: Path) -> int:
    options = "FORMAT parquet, COMPRESSION zstd"
    if form == "ndjson":
        moment = 'strftime("time", \'%Y-%m-%dT%H:%M:%S.%fZ\') AS "time"'
        query, options = f"SELECT * REPLACE ({moment}) FROM ({query})", "FORMAT json"
    with _replaced(file) as aside:
        written = con.execute(f"COPY ({query}) TO {literal(str(aside))} ({options})").fetchone()
    return int(written[0]) if written else 0


@contextmanager
def _replaced(file: Path) -> Iterator[Path]:
    """Yield a file that is in place only once it is whole."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with as_given():
            yield aside
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def _unknown(workspace: Workspace, key: str) -> NoSuchExperiment:
    known = ", ".join(workspace.experiments.experiments) or "none"
    return NoSuchExperiment(
        f"expected the key of an experiment of {workspace.folder / 'experiments.yaml'} ({known}), got {key!r}"
    )
