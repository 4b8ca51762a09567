"""Who was forgotten, as keyed hashes that the event log keeps: nobody can read an id from them, but whoever has an id
can ask.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from features.events import log as event_log
from features.events.rows import unit_digest


class Marks(NamedTuple):
    """When units were forgotten, microseconds since 1970."""

    salt: bytes
    at: dict[bytes, int]

    def forgotten_at(self, unit: str) -> int | None:
        """Return the moment before which nothing of a unit may be known; None where it was never forgotten."""
        return self.at.get(unit_digest(unit, self.salt)) if self.at else None


NOBODY = Marks(b"", {})


def marks_of(folder: Path) -> Marks:
    """Return the marks of an event log's folder.

    Raises:
        LogUnavailable: there is a log, and it cannot be read.
    """
    if not event_log.exists(folder):
        return NOBODY
    with event_log.reading(folder) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'forgotten'").fetchone() is None:
            return NOBODY
        found = dict(connection.execute("SELECT unit, at FROM forgotten").fetchall())
        [(salt,)] = connection.execute("SELECT salt FROM counted").fetchall() or [(b"",)]
    return Marks(salt, found)
