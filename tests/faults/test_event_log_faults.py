"""What `kill -9`, a power cut, a full disk or a stuck neighbour may do to the event log. Drawn tests print their seed;
OPPORTUNE_SEED replays it.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import random
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from features.events.log import EventLog, counts, read_all
from features.events.log_errors import LogUnavailable
from features.events.sqlite_file import LogLimits, connect
from tests.depth import rounds
from tests.features import event_child
from tests.features.event_child import ACK, fill, flood, happened, item

KILL_ROUNDS = rounds(20)
KILLED_AFTER_SECONDS = (0.02, 0.12)
CUTS = 160
CHILD_SECONDS_MAX = 180.0
ROOMY = LogLimits(free_bytes_min=0, retry_seconds=0.0)


@pytest.fixture
def chance(capsys: pytest.CaptureFixture[str]) -> random.Random:
    """Drawn from a seed that is printed."""
    seed = int(os.environ.get("OPPORTUNE_SEED") or random.SystemRandom().randrange(1 << 32))
    with capsys.disabled():
        print(f"\n  replay with OPPORTUNE_SEED={seed}", end=" ")
    return random.Random(seed)


@contextlib.contextmanager
def child(target: Any, *arguments: Any) -> Iterator[tuple[Any, Any]]:
    """A process forked from a clean one, and the reading end of its pipe. Killed when left."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([event_child.__name__])
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(writing, *arguments), daemon=True)
    process.start()
    writing.close()
    try:
        yield process, reading
    finally:
        process.kill()
        process.join()
        process.close()
        reading.close()


def all_of(handle: int) -> bytes:
    content = b""
    while part := os.read(handle, 1 << 16):
        content += part
    return content


def check(folder: Path) -> None:
    """The file is sound, its counters are what its tables hold, and moments ascend."""
    with contextlib.closing(connect(folder / "events.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        stored, dead = (
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("events", "dead")
        )
    found, rows = counts(folder), list(read_all(folder, 0))
    assert (found.stored, found.dead) == (stored, dead)
    assert found.accepted == found.stored + found.duplicates + found.dead
    assert all(row.intact for row in rows)
    assert all(row.received < after.received for row, after in itertools.pairwise(rows))


def test_killed_writers_lose_nothing(tmp_path: Path, chance: random.Random) -> None:
    """Killed at any moment beside another that lives on, a writer loses no event that it acknowledged, and doubles
    none.
    """
    acknowledged: set[str] = set()
    neighbour = EventLog(tmp_path, ROOMY)
    for turn in range(KILL_ROUNDS):
        with child(flood, tmp_path, turn) as (process, reading):
            first = os.read(reading.fileno(), ACK.size)  # it works: what comes is within its work
            time.sleep(chance.uniform(*KILLED_AFTER_SECONDS))
            process.kill()
            process.join()
            content = first + all_of(reading.fileno())
        whole = len(content) - len(content) % ACK.size
        acknowledged.update(f"{turn}-{lane}-{name}" for lane, name in ACK.iter_unpack(content[:whole]))
        neighbour.append([item(happened(f"neighbour-{turn}"))])
        acknowledged.add(f"neighbour-{turn}")
    neighbour.close()
    found = [row.event.event_id for row in read_all(tmp_path, 0)]
    assert acknowledged <= set(found)
    assert len(set(found)) == len(found)
    assert len(acknowledged) >= 8 * KILL_ROUNDS
    check(tmp_path)


def test_cut_anywhere_reopens_with_a_prefix(tmp_path: Path, chance: random.Random) -> None:
    """A write-ahead log that ends at any byte is a log of the first batches, each whole or not there, and takes
    more.
    """
    folder, batches = tmp_path / "events", []
    log = EventLog(folder, ROOMY)
    for turn in range(12):
        batches.append([f"{turn}-{row}" for row in range(chance.randrange(1, 30))])
        log.append([item(happened(name)) for name in batches[-1]])
    # `cp`, for closing a database file within this process would drop SQLite's locks.
    subprocess.run(["cp", "-r", str(folder), str(tmp_path / "kept")], check=True)
    log.close()
    size = (tmp_path / "kept" / "events.db-wal").stat().st_size
    ends = [sum(map(len, batches[:count])) for count in range(len(batches) + 1)]
    names = [name for batch in batches for name in batch]
    seen = set()
    for cut in [0, 1, 31, 32, size, *(chance.randrange(size) for _ in range(CUTS))]:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        shutil.copy(tmp_path / "kept" / "events.db", copy)
        (copy / "events.db-wal").write_bytes((tmp_path / "kept" / "events.db-wal").read_bytes()[:cut])
        again = EventLog(copy, ROOMY)
        again.append([item(happened("after"))])
        found = [row.event.event_id for row in read_all(copy, 0)]
        assert found == [*names[: len(found) - 1], "after"]
        assert len(found) - 1 in ends
        assert not again.set_aside()
        again.close()
        seen.add(len(found))
    assert len(seen) > 8
    check(copy)


def test_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    """Where files cannot grow, batches are refused and none is acknowledged in vain; when they can, all goes on by
    itself.
    """
    with child(fill, tmp_path, 60_000) as (_, told):
        answers: list[tuple[int, str]] = []
        with contextlib.suppress(EOFError):
            while told.poll(CHILD_SECONDS_MAX):
                answers.append(told.recv())
    refused = {turn for turn, what in answers if what != "stored"}
    assert len(refused) >= 5
    assert {what for _, what in answers} - {"stored"} <= {"full", "io"}
    assert answers[-1][1] == "stored"
    found = {row.event.event_id for row in read_all(tmp_path, 0)}
    kept = {f"{turn}-{row}" for turn, what in answers if what == "stored" for row in range(20)}
    assert kept <= found
    for turn in refused:  # one that was refused may be there, but then it is whole
        assert len({f"{turn}-{row}" for row in range(20)} & found) in (0, 20)
    log = EventLog(tmp_path, ROOMY)
    again = log.append([item(happened(f"{turn}-{row}")) for turn in sorted(refused) for row in range(20)])
    assert {result.outcome for result in again} <= {"stored", "duplicate"}
    log.close()
    check(tmp_path)


def test_reserve_is_kept(tmp_path: Path) -> None:
    """With less room than the reserve nothing is taken, and the reason says so; reading goes on."""
    log = EventLog(tmp_path, ROOMY)
    log.append([item(happened("e1"))])
    short = EventLog(tmp_path, LogLimits(free_bytes_min=1 << 62))
    with pytest.raises(LogUnavailable, match="make room") as refused:
        short.append([item(happened("e2"))])
    assert (refused.value.reason, refused.value.public) == (
        "reserve",
        "the disk of the event log has less room than is kept in reserve",
    )
    assert [row.event.event_id for row in read_all(tmp_path, 0)] == ["e1"]
    short.close()
    log.close()


def test_stuck_neighbour_is_not_waited_for(tmp_path: Path) -> None:
    """While another keeps the write lock, batches are refused after a while, and taken when it lets go; nothing is half
    written.
    """
    log = EventLog(tmp_path, LogLimits(free_bytes_min=0, locked_seconds_max=0.05, retry_seconds=0.0))
    log.append([item(happened("e1"))])
    with contextlib.closing(connect(tmp_path / "events.db")) as stuck:
        stuck.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnavailable) as refused:
            log.append([item(happened("e2"))])
        assert refused.value.reason == "locked"
        assert len(list(read_all(tmp_path, 0))) == 1
        stuck.execute("ROLLBACK")
    assert [result.outcome for result in log.append([item(happened("e2"))])] == ["stored"]
    log.close()
    check(tmp_path)


def test_failure_within_a_transaction_leaves_nothing(tmp_path: Path) -> None:
    """What fails after its first statement is rolled back, its connection is closed, and the next transaction has
    another.
    """
    log = EventLog(tmp_path, ROOMY)
    log.append([item(happened("e1"))])
    with pytest.raises(LogUnavailable), log.file.transaction() as connection:
        connection.execute("DELETE FROM events")
        raise sqlite3.OperationalError("disk I/O error")
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")
    assert [result.outcome for result in log.append([item(happened("e1"))])] == ["duplicate"]
    log.close()
    check(tmp_path)
