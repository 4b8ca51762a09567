"""Why the event log cannot take or give anything now, for operators and for anybody."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Literal

from features.common.errors import Failure
from features.common.files import FULL_BYTES, free_bytes, is_full, told_full

Reason = Literal["full", "reserve", "io", "locked", "damaged", "closed"]
PUBLIC: dict[Reason, str] = {
    "full": "the disk of the event log is full",
    "reserve": "the disk of the event log has less room than is kept in reserve",
    "io": "the disk of the event log fails",
    "locked": "the event log is locked for too long",
    "damaged": "the file of the event log is damaged",
    "closed": "the event log is closed",
}
"""What may be said to anybody."""
_REASONS: dict[int, Reason] = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
}


class LogUnavailable(Failure):
    """The log cannot take or give anything now. What was asked may or may not have been done: ask again, unchanged."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason: Reason = reason

    @property
    def public(self) -> str:
        """Return why, without anything that only operators should know."""
        return PUBLIC[self.reason]


NEVER = LogUnavailable("closed", "never failed")


def corrupt(text: str) -> sqlite3.DatabaseError:
    """Return the error of SQLite for a damaged file."""
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def reason_of(error: BaseException) -> Reason:
    """Return why an error of SQLite or of the disk stops the log."""
    if isinstance(error, OSError) and is_full(error):
        return "full"
    return _REASONS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "io")


def unavailable(path: Path, error: BaseException) -> LogUnavailable:
    """Return an error as one of the log."""
    if isinstance(error, LogUnavailable):
        return error
    reason = reason_of(error)
    if reason == "io" and free_bytes(path)[0] < FULL_BYTES:  # SQLite calls it an input/output error, too
        reason = "full"
    why = told_full(path.parent) if reason == "full" else getattr(error, "strerror", None) or error
    return LogUnavailable(reason, f"{path}: {why}")
