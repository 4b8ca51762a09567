"""What a workspace holds, counted in its files while nobody changes them: the proof that a backup that was restored is
the one that was made.
"""

from __future__ import annotations

import pyarrow.parquet as pq
from msgspec import Struct

from features.events import log as event_log
from features.events.journal import Line
from features.events.log import event_folder
from features.lake.files import counting
from features.lake.loop_tables import LOOP_TABLES
from features.lake.tables import tables_of
from features.lmdb_store.copy import customers_in, records_in
from features.workspace.workspace import Workspace
from pipelines.shipping.journal_files import journal_folder, lines, listed, read_part
from pipelines.shipping.state import state_of
from training.bundle import bundle
from training.bundle.artifact_locations import versions_in

READ_BYTES_MAX = 16 << 20


class Contents(Struct, frozen=True):
    """What was counted.

    Attributes:
        lake: rows that count, by table.
        events: events in the log, those that are in the lake too among them.
        events_waiting: those of them that are not in the lake yet.
        decisions_waiting: decisions in the journal that are not in the lake yet; those in the lake are rows of
            `recorded`.
        customers: rows of the embedded online store.
        ledger: records of the embedded contact ledger.
        versions: registered versions of the model, in the SQLite registry.
        champion: the version that the alias has, if any.
        serving: the version of the bundle that serves, if any.
    """

    lake: dict[str, int]
    events: int
    events_waiting: int
    decisions_waiting: int
    customers: int
    ledger: int
    versions: int
    champion: str | None
    serving: str | None


def contents_of(workspace: Workspace) -> Contents:
    """Count what a workspace holds.

    Raises:
        OSError, StoreUnavailable, LogUnavailable, sqlite3.Error, ValueError: a file cannot be read.
    """
    shipped = state_of(workspace)
    events, events_waiting = _events(workspace, shipped.events)
    versions, champion = versions_in(workspace.data, workspace.model.name)
    place = bundle.current(workspace.bundles)
    return Contents(
        lake=_lake(workspace),
        events=events,
        events_waiting=events_waiting,
        decisions_waiting=_decisions(workspace, shipped.journals),
        customers=customers_in(workspace.online),
        ledger=records_in(workspace.data / "ledger"),
        versions=versions,
        champion=champion,
        serving=None if place is None else bundle.read(place).manifest.version,
    )


def _lake(workspace: Workspace) -> dict[str, int]:
    tables = (*tables_of(workspace).values(), *LOOP_TABLES)
    counted = {
        table.name: sum(pq.read_metadata(file).num_rows for file in counting(workspace.lake / table.folder))
        for table in tables
    }
    return {name: rows for name, rows in counted.items() if rows}


def _events(workspace: Workspace, shipped: int) -> tuple[int, int]:
    folder = event_folder(workspace.data)
    if not event_log.exists(folder):
        return 0, 0
    with event_log.reading(folder) as connection:
        stored, waiting = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE seq > ?) FROM events", (shipped,)
        ).fetchone()
    return int(stored), int(waiting)


def _decisions(workspace: Workspace, shipped: dict[str, int]) -> int:
    """Decisions beyond what was shipped, as the shipper would read them."""
    folder, count = journal_folder(workspace.data), 0
    for file in listed(folder):
        begin = shipped.get(file.stem, 0)
        while content := read_part(folder, file.stem, begin, READ_BYTES_MAX):
            end = 0
            for end, line, _ in lines(content, []):  # noqa: B007
                count += isinstance(line, Line)
            if not end:
                break
            begin += end
    return count
