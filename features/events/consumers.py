"""Registry of the workers whose logged events are not yet applied to the ledger.

An event is acknowledged once it is in the log, and then heard by the ledger, by the worker that took it. A worker may
die in between. So each has a number, which its rows in the log carry; a mark in the log says up to which place its
events were heard; and a file that it keeps locked says that it lives. Another worker that gets the lock goes on for it.
Hearing is idempotent: a mark may lag behind.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from features.common.files import is_held
from features.events.log import EventLog, exists, reading
from features.events.sqlite_file import make_folder

ALIVE = ".alive"


class Alive:
    """The lock of a worker, its own or a dead one's."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path, self._handle = path, handle
        self.worker = int(path.stem, 16)

    def release(self) -> None:
        """Let another have it: there is still something to be heard, or the process ends."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def bury(self, log: EventLog) -> None:
        """Remove mark and file, once all is heard. The log is another worker's, or this one's last use of its own."""
        with log.file.transaction() as connection:
            connection.execute("DELETE FROM hearers WHERE worker = ?", (self.worker,))
        self.path.unlink(missing_ok=True)
        self.release()


def begin(folder: Path) -> Alive:
    """Return a new worker of this log."""
    make_folder(folder)
    while True:
        path = folder / f"{secrets.randbits(47) + 1:012x}{ALIVE}"
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_at(path, handle):
            return Alive(path, handle)
        os.close(handle)  # another took it for a dead one's, before it was locked


def dead(folder: Path) -> Iterator[Alive]:
    """Workers that died before all of their events were known to be heard, each locked until it is released or
    buried.
    """
    if not exists(folder):
        return
    with reading(folder) as connection:
        marked = [worker for (worker,) in connection.execute("SELECT worker FROM hearers")]
    files = {int(path.stem, 16) for path in folder.glob(f"*{ALIVE}")}
    for worker in sorted({*marked, *files}):
        path = folder / f"{worker:012x}{ALIVE}"
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)  # it lives
            continue
        if not _is_at(path, handle):
            os.close(handle)  # another has buried it in between
            continue
        yield Alive(path, handle)


def anybody(folder: Path) -> bool:
    """Return whether a worker lives that would write to this log. A dead one's file is held for a moment, no longer
    than it takes to look.
    """
    return any(is_held(path) for path in folder.glob(f"*{ALIVE}"))


def _is_at(path: Path, handle: int) -> bool:
    """Return whether the open file still has its name."""
    try:
        return path.stat().st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False


def mark_of(folder: Path, worker: int) -> int | None:
    """Up to which place a worker's events are known to be heard; None: it has written none, or all is done."""
    with reading(folder) as connection:
        found = connection.execute("SELECT heard FROM hearers WHERE worker = ?", (worker,)).fetchone()
    return None if found is None else int(found[0])
