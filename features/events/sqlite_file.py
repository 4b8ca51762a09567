"""The file of the event log: SQLite in WAL mode, opened, locked, and set aside where it is damaged beyond recovery.

Several processes of a machine write the same file. Each transaction looks whether the file is still the one that was
opened, under a shared lock: whoever sets a damaged file aside has that lock alone, so that nobody goes on writing what
nobody will read. A connection that failed is not trusted again: it is closed, and another is opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from features.common import timestamps
from features.common.files import sync, told_short
from features.common.moments import Micros
from features.events.log_errors import NEVER, LogUnavailable, corrupt, reason_of, unavailable

logger = logging.getLogger("opportune.events")

NAME, LOCK = "events.db", "events.lock"
DAMAGED = ".damaged-"
"""Between the name of a file that was set aside and the time."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS events(
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, digest BLOB NOT NULL, received INTEGER NOT NULL,
    unit TEXT NOT NULL, worker INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS dead(seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, reason TEXT NOT NULL, unit
    TEXT, body BLOB);
CREATE TABLE IF NOT EXISTS counted(
    one INTEGER PRIMARY KEY CHECK (one = 1), accepted INTEGER NOT NULL, stored INTEGER NOT NULL, duplicates INTEGER NOT
        NULL,
    dead INTEGER NOT NULL, dropped INTEGER NOT NULL, seq INTEGER NOT NULL, received INTEGER NOT NULL, salt BLOB NOT
        NULL);
CREATE TABLE IF NOT EXISTS forgotten(unit BLOB PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hearers(worker INTEGER PRIMARY KEY, heard INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class LogLimits:
    """Bounds of the event log."""

    free_bytes_min: int = 64 << 20
    """Kept free on the disk: with less the log takes nothing, so that what deletes and ships still has room."""
    locked_seconds_max: float = 2.0
    """Wait for another process that writes."""
    retry_seconds: float = 0.5
    """After a failure: how long everything is refused before the file is opened again."""
    checked_bytes_max: int = 64 << 20
    """Files up to this size are checked as a whole when a process opens them first; larger ones when they look damaged.
    """
    wal_bytes: int = 4 << 20
    """The write-ahead log is brought into the file when it is larger."""
    wal_bytes_max: int = 64 << 20
    """Beyond, writers wait until it is."""
    transaction_rows_max: int = 4_000
    waiting_rows_max: int = 20_000
    """Items that wait for the writer; beyond, more are refused."""


class EventFile:
    """One connection that writes; belongs to one thread at a time."""

    def __init__(
        self, folder: Path, limits: LogLimits | None = None, clock: Callable[[], Micros] = timestamps.now
    ) -> None:
        self.folder, self.path = folder, folder / NAME
        self.limits, self.clock = limits or LogLimits(), clock
        self._connection: sqlite3.Connection | None = None
        self._inode, self._lock = (0, 0), -1
        self._checked, self._suspected, self._closed = False, False, False
        self._retry_at, self._lacks = 0.0, NEVER

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction with the write lock, durable when the block is left.

        Raises:
            LogUnavailable: then it is not known whether it was done.
        """
        if self._closed:
            raise LogUnavailable("closed", f"{self.path}: the event log is closed")
        if time.monotonic() < self._retry_at:
            raise LogUnavailable(self._lacks.reason, str(self._lacks))
        try:
            connection = self._begin()
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if self._lock >= 0:
                    fcntl.flock(self._lock, fcntl.LOCK_UN)
        except (sqlite3.Error, OSError, LogUnavailable) as error:
            self._drop(unavailable(self.path, error))
            raise self._lacks from None
        except BaseException:
            self._disconnect()  # rolls back
            raise
        if self._retry_at:
            logger.info("events are taken again")
            self._retry_at, self._lacks = 0.0, NEVER

    def _begin(self) -> sqlite3.Connection:
        deadline = time.monotonic() + self.limits.locked_seconds_max
        self._share(deadline)
        try:
            connection = self._connection
            if connection is not None and _inode(self.path) != self._inode:
                logger.warning("%s: another file has taken its place, it is opened again", self.path)
                self._disconnect()
                connection = None
            if connection is None:
                connection = self._open(deadline)
            if (free := shutil.disk_usage(self.folder).free) < self.limits.free_bytes_min:
                raise LogUnavailable("reserve", told_short(self.folder, self.limits.free_bytes_min, free))
            _patiently(connection, "BEGIN IMMEDIATE", deadline)
        except BaseException:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            raise
        return connection

    def _share(self, deadline: float) -> None:
        """Keep everybody from setting the file aside, as long as the lock is held."""
        if self._lock < 0:
            make_folder(self.folder)
            self._lock = os.open(self.folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        _flock(self._lock, fcntl.LOCK_SH, deadline)

    def _open(self, deadline: float) -> sqlite3.Connection:
        """Return a connection to a file that holds the tables; one that is damaged beyond recovery is set aside, and
        another begun.
        """
        try:
            return self._connect(deadline)
        except sqlite3.DatabaseError as error:
            if reason_of(error) != "damaged":
                raise
            self._disconnect()
        _flock(
            self._lock, fcntl.LOCK_EX, deadline
        )  # gives up the shared one first: another may have done it in between
        if what := damage(self.path):
            self._set_aside(what)
        self._checked, self._suspected = True, False
        return self._connect(deadline)

    def _connect(self, deadline: float) -> sqlite3.Connection:
        if not self.path.exists():
            # Another descriptor of an open database must never be closed: SQLite's locks would go with it.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
                sync(self.folder)
        self._inode = _inode(self.path)
        connection = self._connection = connect(self.path)
        _patiently(connection, "PRAGMA journal_mode = WAL", deadline)
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # another thread does it
        small = self.path.stat().st_size <= self.limits.checked_bytes_max
        if self._suspected or (small and not self._checked):
            if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise corrupt("quick_check finds damage")
            self._checked, self._suspected = True, False
        _patiently(connection, "BEGIN IMMEDIATE", deadline)
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        if connection.execute("SELECT 1 FROM counted").fetchone() is None:
            # Places begin where no log before can have come to: whoever has read one up to a place goes on in this one.
            begin = self.clock()
            connection.execute("INSERT INTO counted VALUES (1, 0, 0, 0, 0, 0, ?, ?, ?)", (begin, begin, os.urandom(16)))
        connection.execute("COMMIT")
        connection.execute("PRAGMA busy_timeout = 0")  # from now on only the write lock is waited for, see `_patiently`
        return connection

    def _set_aside(self, what: str) -> None:
        target = self.path.with_name(f"{NAME}{DAMAGED}{timestamps.rfc3339(self.clock()).replace(':', '')}")
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{target}{suffix}")
        sync(self.folder)
        logger.error(
            "%s is damaged beyond recovery (%s): it is set aside as %s and a new log is begun; what was shipped is in"
            " the lake, what was not may be read from there with `sqlite3 %s .recover`",
            *(self.path, what, target.name, target.name),
        )

    def _drop(self, lack: LogUnavailable) -> None:
        if str(lack) != str(self._lacks):
            logger.error("events are refused: %s", lack)
        self._lacks, self._retry_at = lack, time.monotonic() + self.limits.retry_seconds
        self._suspected |= lack.reason == "damaged"
        self._disconnect()
        self._unlock()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def close(self) -> None:
        """Close the file for good."""
        self._closed = True
        self._disconnect()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Return a connection without transactions of its own; what is written is durable when its transaction is, what is
    deleted is overwritten.
    """
    target = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
    connection = sqlite3.connect(target, uri=True, timeout=0.5, isolation_level=None, check_same_thread=False)
    for pragma in ("busy_timeout = 500", "synchronous = FULL", "secure_delete = ON", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def damage(path: Path) -> str:
    """Return what SQLite finds wrong with a file after its recovery; empty where nothing is."""
    if not path.exists():
        return ""
    try:
        with contextlib.closing(connect(path)) as connection:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            return "" if found == "ok" else found.replace("\n", " ")[:200]
    except sqlite3.DatabaseError as error:
        if reason_of(error) != "damaged":
            raise
        return str(error)


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner may read."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(folder.parent)
    folder.chmod(0o700)


def _patiently(connection: sqlite3.Connection, statement: str, deadline: float) -> None:
    """Run a statement that needs the write lock.

    SQLite's own wait sleeps for longer and longer, up to 100 ms, and knows no turns.
    """
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if reason_of(error) != "locked" or not _pause(deadline):
                raise
        else:
            return


def _flock(handle: int, how: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if not _pause(deadline):
                raise LogUnavailable("locked", "another process keeps the event log to itself") from None
        else:
            return


def _pause(deadline: float) -> bool:
    time.sleep(0.0005)
    return time.monotonic() < deadline


def _inode(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino
