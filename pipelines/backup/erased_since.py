"""Who was forgotten after a backup was made, and is in it again when it is restored.

The event log keeps a keyed hash of everybody who was forgotten. The log of the data folder that a restore puts aside,
or of another copy of the workspace, knows the later ones. Its key is that of the backup's log, so the ids that the
restored data holds can be looked up in it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from features.events import log as event_log
from features.events.log import EventLog, event_folder
from features.events.log_errors import LogUnavailable
from features.events.rows import unit_digest
from features.lake import lake
from features.lake.loop_tables import LOOP_TABLES
from features.lake.tables import tables_of
from features.workspace.workspace import Workspace

Marks = dict[bytes, int]
"""Keyed hashes of units that were forgotten, with the moments, microseconds since 1970."""


def bring_marks(workspace: Workspace, later: Path) -> tuple[list[str], str]:
    """Take over the marks of a later event log, so that nothing of before is let in again.

    Args:
        workspace: the one that was restored, while nothing else works on it.
        later: a data folder, or what is left of one.

    Returns:
        Units of the restored data that were forgotten since, and why they cannot be told, or nothing.
    """
    folder = event_folder(workspace.data)
    if not event_log.exists(event_folder(later)) or not event_log.exists(folder):
        return [], "there is no event log of both to compare"
    try:
        (salt, before), (other, after) = _marks(folder), _marks(event_folder(later))
    except (sqlite3.Error, LogUnavailable) as error:
        return [], f"the marks cannot be read: {error}"
    if salt != other:
        return [], "the event log was begun anew since the backup, with another key"
    new = {digest: at for digest, at in after.items() if at > before.get(digest, -1)}
    if not new:
        return [], ""
    with closing(EventLog(folder)) as log, log.file.transaction() as connection:
        known = "INSERT INTO forgotten VALUES (?, ?) ON CONFLICT(unit) DO UPDATE SET at = max(at, excluded.at)"
        connection.executemany(known, new.items())
    return sorted(unit for unit in _units(workspace) if unit_digest(unit, salt) in new), ""


def _marks(folder: Path) -> tuple[bytes, Marks]:
    with event_log.reading(folder) as connection:
        [(salt,)] = connection.execute("SELECT salt FROM counted").fetchall()
        return salt, dict(connection.execute("SELECT unit, at FROM forgotten").fetchall())


def _units(workspace: Workspace) -> set[str]:
    """Return all units that lake and event log name."""
    found: set[str] = set()
    with closing(lake.connect(workspace)) as con:
        for table in (*tables_of(workspace).values(), *LOOP_TABLES):
            for name in {"customer_id", "unit"} & {field.name for field in table.fields}:
                rows = con.execute(
                    f"SELECT DISTINCT {name} FROM ({lake.select(workspace, table)}) WHERE {name} IS NOT NULL"
                ).fetchall()
                found.update(str(unit) for (unit,) in rows)
    with event_log.reading(event_folder(workspace.data)) as connection:
        found.update(unit for (unit,) in connection.execute("SELECT DISTINCT unit FROM events"))
    return found
