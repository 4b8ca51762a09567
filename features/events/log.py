"""The event log: every event that was acknowledged, durably, once, in the order in which it was received.

One SQLite file of a machine (`<data>/events/events.db`) that all workers write, `synchronous=FULL`. It recognises an
event by its id for as long as it keeps it, keeps what cannot be an event as a dead letter with its reason, and counts
so that accepted = stored + duplicates + dead, exactly. `received` ascends strictly over all processes; `barrier` cuts
it.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from features.common import timestamps
from features.common.moments import Micros
from features.events.log_errors import LogUnavailable
from features.events.rows import (
    FORGOTTEN,
    EventCounts,
    Item,
    Logged,
    Result,
    append,
    dead_item,
    forgotten,
    read_state,
    short,
    unit_digest,
)
from features.events.sqlite_file import DAMAGED, NAME, EventFile, LogLimits, connect

READ_ROWS_MAX = 10_000
"""Rows of one step of reading or deleting."""
WAL_TRIES_MAX = 5
"""Each waits up to a second for readers."""


class EventLog:
    """Everything that is done to the log, waiting for the disk; for one thread at a time. `EventWriter` is the same for
    an event loop.

    Args:
        folder: of the file, see `event_folder`; made for its owner alone.
        worker: who writes, see `consumers`; 0 where the events need not be heard.

    All methods raise LogUnavailable when the log cannot take or give anything now.
    """

    def __init__(
        self,
        folder: Path,
        limits: LogLimits | None = None,
        clock: Callable[[], Micros] = timestamps.now,
        worker: int = 0,
    ) -> None:
        self.file, self.worker, self._clock = EventFile(folder, limits, clock), worker, clock

    def append(self, items: Sequence[Item], heard: int | None = None) -> list[Result]:
        """Writes items, durably; what became of each, in their order.

        Args:
            heard: up to which place the ledger has heard this worker's events, where that is to be written too.
        """
        with self.file.transaction() as connection:
            if self.worker:
                mark = "INSERT INTO hearers VALUES (?, ?) ON CONFLICT(worker) DO "
                if heard is None:
                    connection.execute(mark + "NOTHING", (self.worker, read_state(connection).seq))
                else:
                    connection.execute(
                        mark + "UPDATE SET heard = excluded.heard WHERE heard < excluded.heard", (self.worker, heard)
                    )
            return append(connection, items, self.worker, self._clock()) if items else []

    def barrier(self) -> Micros:
        """Return a moment, microseconds since 1970: all that is in the log was received before it, and all that comes
        later is not.

        So `received < barrier` divides what is there from what is not, whatever the clock does.
        """
        with self.file.transaction() as connection:
            state = read_state(connection)
            moment = Micros(max(self._clock(), state.received + 1))
            connection.execute("UPDATE counted SET received = ?", (moment - 1,))
        return moment

    def forget(self, unit: str, at: int) -> dict[str, int]:
        """Deletes what the log has of a unit, and lets nothing in that happened to it before `at`.

        Files that were set aside as damaged go as a whole: nobody can tell what they hold. May be repeated.

        Args:
            unit: a customer id, or an anonymous unit.
            at: microseconds since 1970.

        Returns:
            How many events, dead letters and files set aside were deleted, and how many of the unit's rows a re-read
            still finds: 0.
        """
        with self.file.transaction() as connection:
            [(salt,)] = connection.execute("SELECT salt FROM counted")
            known = "INSERT INTO forgotten VALUES (?, ?) ON CONFLICT(unit) DO UPDATE SET at = max(at, excluded.at)"
            connection.execute(known, (unit_digest(unit, salt), at))
        deleted = {"events": 0, "dead_letters": 0, "set_aside": 0}
        # What is found after that transaction is all there is. It is looked for without the lock: that reads the whole
        # file.
        for table, what in (("events", "events"), ("dead", "dead_letters")):
            with self._reading() as reading:
                found = self._rows_of(reading, table, unit)
            for at_row in range(0, len(found), READ_ROWS_MAX):
                with self.file.transaction() as connection:
                    rows = [(seq,) for seq in found[at_row : at_row + READ_ROWS_MAX]]
                    deleted[what] += connection.executemany(f"DELETE FROM {table} WHERE seq = ?", rows).rowcount
        for path in self.set_aside():
            path.unlink(missing_ok=True)
            deleted["set_aside"] += 1
        self._empty_wal()
        with self._reading() as reading:
            left = sum(len(self._rows_of(reading, table, unit)) for table in ("events", "dead"))
        return {**deleted, "left": left}

    def _rows_of(self, connection: sqlite3.Connection, table: str, unit: str) -> list[int]:
        """Places of the rows of a unit; dead letters whose unit could not be read are searched for its id."""
        found = [seq for (seq,) in connection.execute(f"SELECT seq FROM {table} WHERE unit = ?", (unit,))]
        if table == "dead":
            plain = unit.removeprefix("~").encode()
            word = re.compile(rb"(?<![A-Za-z0-9])" + re.escape(plain) + rb"(?![A-Za-z0-9])")
            others = connection.execute("SELECT seq, body FROM dead WHERE unit = '' AND instr(body, ?)", (plain,))
            found += [seq for seq, body in others if word.search(body)]
        return found

    def set_aside(self) -> list[Path]:
        """Files that were damaged beyond recovery, with what belongs to them."""
        return sorted(self.file.folder.glob(f"{NAME}{DAMAGED}*"))

    def prune(self, before: int, shipped: int, dead_before: int) -> dict[str, int]:
        """Deletes what is no longer needed.

        Args:
            before: events received before this moment go, microseconds since 1970, once they were heard, and shipped
            shipped: up to this place.
            dead_before: dead letters from before this moment go.
        """
        deleted = {"events": 0, "dead_letters": 0}
        unheard = "EXISTS (SELECT 1 FROM hearers WHERE hearers.worker = events.worker AND hearers.heard < events.seq)"
        old = f"SELECT seq FROM events WHERE seq <= ? AND received < ? AND NOT {unheard} ORDER BY seq LIMIT ?"
        steps = (
            ("events", old, (shipped, before, READ_ROWS_MAX)),
            ("dead_letters", "SELECT seq FROM dead WHERE at < ? ORDER BY seq LIMIT ?", (dead_before, READ_ROWS_MAX)),
        )
        for what, query, values in steps:
            table, gone = ("events" if what == "events" else "dead"), READ_ROWS_MAX
            while gone == READ_ROWS_MAX:
                with self.file.transaction() as connection:
                    gone = connection.execute(f"DELETE FROM {table} WHERE seq IN ({query})", values).rowcount
                deleted[what] += gone
        return deleted

    def resubmit(
        self, items: Sequence[Item], linked: Mapping[int, str] | None = None, *, dry_run: bool = False
    ) -> list[Result | None]:
        """Send dead letters again, each item with its `letter`: in one transaction the event is written, the letter is
        deleted and the counters follow.

        Args:
            linked: by letter, the anonymous unit that an event names beside its customer: an event that happened before
                either was forgotten is not let in.
            dry_run: say what would become of them, and write nothing.

        Returns:
            One result an item, in their order; None where the letter is no longer there.
        """
        with self.file.transaction() as connection:
            connection.execute("SAVEPOINT resubmitted")
            there = _letters_there(connection, [item.letter for item in items])
            kept = [item for item in items if item.letter in there]
            others = [item._replace(unit=(linked or {})[item.letter]) for item in kept if item.letter in (linked or {})]
            gone = forgotten(connection, others)
            kept = [item if item.digest not in gone else dead_item(FORGOTTEN, "", b"", item.letter) for item in kept]
            if self.worker and not dry_run:
                mark = "INSERT OR IGNORE INTO hearers VALUES (?, ?)"
                connection.execute(mark, (self.worker, read_state(connection).seq))
            results = iter(append(connection, kept, self.worker, self._clock()) if kept else [])
            told = [next(results) if item.letter in there else None for item in items]
            connection.execute("ROLLBACK TO resubmitted" if dry_run else "RELEASE resubmitted")
        return told

    def _empty_wal(self) -> None:
        """What was deleted is still in the write-ahead log until it is cut off, which waits for readers."""
        for _ in range(WAL_TRIES_MAX):
            if self.checkpoint(whole=True):
                return
        raise LogUnavailable(
            "locked", f"{self.file.path}: readers keep the write-ahead log, which may hold what was deleted: try again"
        )

    def checkpoint(self, *, whole: bool = False) -> bool:
        """Brings the write-ahead log into the file; with `whole`, it is empty afterwards if no reader needs it. Whether
        all was done.
        """
        try:
            with contextlib.closing(connect(self.file.path)) as connection:
                connection.execute("PRAGMA busy_timeout = 1000" if whole else "PRAGMA busy_timeout = 0")
                busy = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[
                    0
                ]  # most of the work, beside writers
                if whole:
                    busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                return not busy
        except sqlite3.Error as error:
            raise LogUnavailable("io", f"{self.file.path}: {error}") from None

    def wal_bytes(self) -> int:
        """Size of the write-ahead log."""
        try:
            return Path(f"{self.file.path}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with reading(self.file.folder) as connection:
            yield connection

    def close(self) -> None:
        self.file.close()


def event_folder(data: Path) -> Path:
    """Return where the event log of a workspace lies, in its data folder."""
    return data / "events"


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """Return a connection that only reads, from any process and thread; it sees the log as it is at each query.

    Raises:
        LogUnavailable: there is none, or it cannot be read.
    """
    try:
        with contextlib.closing(connect(folder / NAME, read_only=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise LogUnavailable("io", f"{folder / NAME}: {error}") from None


def exists(folder: Path) -> bool:
    """Return whether there is a log."""
    return (folder / NAME).exists()


def read(
    folder: Path,
    after: int,
    *,
    received_before: int | None = None,
    rows: int = READ_ROWS_MAX,
    worker: int | None = None,
) -> list[Logged]:
    """Events after a place, in order; the next step goes on after the last one's `seq`.

    Args:
        received_before: a `barrier`: nothing that was received then or later.
        worker: only what this one wrote.
    """
    conditions, values = ["seq > ?"], [after]
    for condition, value in (("received < ?", received_before), ("worker = ?", worker)):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    query = (
        f"SELECT seq, received, unit, body, digest FROM events WHERE {' AND '.join(conditions)} ORDER BY seq LIMIT ?"
    )
    with reading(folder) as connection:
        found = connection.execute(query, (*values, rows)).fetchall()
    return [Logged(seq, received, unit, body, short(body) == digest) for seq, received, unit, body, digest in found]


def read_all(folder: Path, after: int, received_before: int | None = None) -> Iterator[Logged]:
    """Events after a place, one by one, read in steps."""
    while found := read(folder, after, received_before=received_before):
        yield from found
        after = found[-1].seq


def counts(folder: Path) -> EventCounts:
    """Return the counters; zeros where there is no log."""
    if not exists(folder):
        return EventCounts()
    with reading(folder) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'counted'").fetchone() is None:
            return EventCounts()
        return read_state(connection).counts


def _letters_there(connection: sqlite3.Connection, letters: Sequence[int]) -> set[int]:
    """Return those of these dead letters that are still there."""
    places = ", ".join("?" * len(letters))
    return {seq for (seq,) in connection.execute(f"SELECT seq FROM dead WHERE seq IN ({places})", letters)}
