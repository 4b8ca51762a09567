"""A consistent copy of a workspace's data folder, made aside while servers go on answering and taking events.

What background work moves stands still for the seconds of the copy (`holding.held`), so that no row is between the log
and the lake: what was shipped is in the lake and counted in `shipped.json`, the rest is in journals and event log. What
servers write is copied in the order in which they rely on it: first the event log and the journals, then the ledger. So
the ledger knows at least what log and journals say; were it the other way round, an event could be marked as heard by a
ledger that lacks it.

    event log, registry, other SQLite files   SQLite's online backup: a snapshot of one moment
    journals                                  what a live process is writing is copied up to what it had written, like
    after a kill ledger, online rows                       a compacted snapshot, made by a process of its own
    (`lmdb_store/copy.py`) lake, offline tables, bundles, artifacts  never changed in place, only replaced: linked,
    which takes no room and hardly any time
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from features.events.consumers import ALIVE
from features.events.log import event_folder
from features.events.sqlite_file import LOCK
from features.events.sqlite_file import NAME as EVENTS_FILE
from features.ledger.lmdb_file import LEDGER
from features.lmdb_store.copy import copy_environment, copy_generation
from features.lmdb_store.environment import CURRENT, DATA
from features.workspace.workspace import Workspace
from pipelines.shipping.journal_files import journal_folder
from serving.journal.files import DAMAGED, OPEN, SEALED, TURN

NOT_COPIED = frozenset(("aside", "spill", "logs", "bentoml", "metrics", "damaged", "online", "ledger"))
"""Top folders of the data folder that hold nothing to keep, or are copied in another way."""
_LOCKS = frozenset(("lock", "lock.mdb", LOCK, TURN))
_SQLITE = b"SQLite format 3\0"
_OF_SQLITE = ("-wal", "-shm", "-journal")


def copy_data(workspace: Workspace, target: Path) -> dict[str, str]:
    """Copy the data folder into a new folder. The workspace is to be held.

    Returns:
        What was left out, and why: an embedded store that is damaged is made again from the rest, wherever the copy is
            served.

    Raises:
        OSError, sqlite3.Error: a file cannot be read, or the disk refuses.
    """
    target.mkdir(mode=0o700, parents=True)
    data = workspace.data
    events = event_folder(data) / EVENTS_FILE
    if events.exists():
        _copy_sqlite(events, target / events.relative_to(data))
    _copy_journals(journal_folder(data), target / journal_folder(data).relative_to(data))
    left_out: dict[str, str] = {}
    if (data / "ledger" / DATA).exists():
        if wrong := copy_environment(data / "ledger", target / "ledger"):
            left_out["ledger"] = wrong
        with suppress(FileNotFoundError):
            shutil.copyfile(data / "ledger" / LEDGER, target / "ledger" / LEDGER)
    if (data / "online" / CURRENT).exists() and (wrong := copy_generation(data / "online", target / "online")):
        left_out["online"] = wrong
    for source in _others(data):
        place = target / source.relative_to(data)
        if not place.exists():
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _copy_sqlite(source, place) if _is_sqlite(source) else _link(source, place)
    return left_out


def _others(data: Path) -> Iterator[Path]:
    """Yield all other files that are worth keeping, databases before what they name."""
    for folder, folders, names in os.walk(data, followlinks=True):
        if Path(folder) == data:
            folders[:] = [
                name for name in folders if name not in NOT_COPIED and not name.startswith(("ledger.", "journal"))
            ]
        folders.sort()
        for name in sorted(names):
            draft = name.startswith((".", f"{CURRENT}."))
            if not draft and name not in _LOCKS and not name.endswith((".lock", ALIVE, *_OF_SQLITE)):
                yield Path(folder) / name


def _copy_journals(folder: Path, target: Path) -> None:
    """Sealed files are linked; one that is being written is copied as far as it is, and found again under its next name
    if it is renamed.
    """
    if not folder.is_dir():
        return
    target.mkdir(mode=0o700)
    for source in sorted(folder.iterdir()):
        if source.name.startswith(".") or source.name == TURN:
            continue
        names = (OPEN, SEALED, DAMAGED) if source.suffix == OPEN else (source.suffix,)
        for suffix in names:
            with suppress(FileNotFoundError):  # renamed, or deleted since
                found = source.with_suffix(suffix)
                (_copy if suffix == OPEN else _link)(found, target / found.name)
                break


def _copy(source: Path, target: Path) -> None:
    """Copy as much of a file as it has now; it may grow meanwhile."""
    with source.open("rb") as reading, target.open("wb") as writing:
        left = os.fstat(reading.fileno()).st_size
        while left and (chunk := reading.read(min(left, 1 << 20))):
            writing.write(chunk)
            left -= len(chunk)


def _link(source: Path, target: Path) -> None:
    """Give a file that is only ever replaced another name; copy it where the file system has no such names."""
    with suppress(FileNotFoundError):  # replaced by nothing, in the moment since it was listed
        try:
            os.link(source.resolve(strict=True), target)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            _copy(source, target)


def _is_sqlite(file: Path) -> bool:
    with suppress(FileNotFoundError), file.open("rb") as stream:
        return stream.read(len(_SQLITE)) == _SQLITE
    return False


def _copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment, whoever writes it; a transaction is in it whole or not at all."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=60)) as reading,
        closing(sqlite3.connect(target, timeout=60)) as writing,
    ):
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode = DELETE")  # no second file beside it; its next user sets what it needs
