"""The event log against a model of ten lines: conservation, order, barriers, letters that are sent again."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events import consumers
from features.events.dead_letters import letters
from features.events.log import EventLog, counts, exists, read, read_all, reading
from features.events.log_errors import LogUnavailable
from features.events.rows import CONFLICT, EventCounts, dead_item, event_item
from features.events.semantics import time_of
from features.events.sqlite_file import LogLimits
from tests.features.event_child import happened, item
from tests.features.events.log_cases import ROOMY, outcomes
from tests.waiting import LIMIT_S


def test_what_is_stored_is_durable_and_private(tmp_path: Path) -> None:
    """Commits wait for the disk, deleted bytes are overwritten, and nobody but the owner reads folder and files."""
    log = EventLog(tmp_path / "events", ROOMY)
    log.append([item(happened("e1"))])
    with log.file.transaction() as connection:
        pragmas = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode", "secure_delete")
        ]
    assert pragmas == [2, "wal", 1]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "events").iterdir()}
    assert {"events.db", "events.db-wal"} <= set(modes)
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "events").stat().st_mode) == 0o700
    log.close()


def test_same_id_same_body_is_a_duplicate_however_it_was_sent(tmp_path: Path) -> None:
    """A duplicate gets place and moment of the first; another body is a dead letter; both also within one batch."""
    log = EventLog(tmp_path, ROOMY)
    first, again, other = happened("e1"), happened("e1"), happened("e1", 2.0)
    results = log.append([item(first), item(again), item(other)])
    assert outcomes(results) == ["stored", "duplicate", CONFLICT]
    assert results[1][2:4] == results[0][2:4]
    results = log.append([item(other), item(again), item(happened("e2"))])
    assert outcomes(results) == [CONFLICT, "duplicate", "stored"]
    assert counts(tmp_path) == EventCounts(6, 2, 2, 2, 0)
    assert [row.event for row in read_all(tmp_path, 0)] == [first, happened("e2")]
    log.close()


ITEMS = st.lists(
    st.one_of(
        st.builds(lambda name, value: item(happened(f"e{name}", float(value))), st.integers(0, 6), st.integers(0, 1)),
        st.just(dead_item("field-type", "", b"{}")),
    ),
    max_size=24,
)


@settings(max_examples=40, deadline=None)
@given(batches=st.lists(st.tuples(st.integers(0, 1), ITEMS, st.booleans()), max_size=8))
def test_any_sequence_is_as_the_model(
    batches: list[tuple[int, list[Any], bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two writers in turn, reopened now and then, give each item what a dictionary gives it, and count exactly that."""
    folder = tmp_path_factory.mktemp("log")
    logs = [EventLog(folder, ROOMY), EventLog(folder, ROOMY)]
    model: dict[bytes, bytes] = {}
    tally: Counter[str] = Counter()
    for who, items, reopen in batches:
        expected = []
        for one in items:
            if one.reason:
                expected.append(one.reason)
            elif one.id not in model:
                model[one.id] = one.digest
                expected.append("stored")
            else:
                expected.append("duplicate" if model[one.id] == one.digest else CONFLICT)
        assert outcomes(logs[who].append(items)) == expected
        tally.update(expected)
        if reopen:
            logs[who].close()
            logs[who] = EventLog(folder, ROOMY)
    dead = tally["field-type"] + tally[CONFLICT]
    assert counts(folder) == EventCounts(tally.total(), tally["stored"], tally["duplicate"], dead, 0)
    rows = list(read_all(folder, 0)) if exists(folder) else []
    assert len(rows) == len(model)
    assert all(
        row.intact and row.received < after.received and row.seq < after.seq for row, after in itertools.pairwise(rows)
    )
    for log in logs:
        log.close()


def test_two_processes_conserve(tmp_path: Path) -> None:
    """Whatever two processes write at once: each id is stored once, and every item is stored, a duplicate or dead,
    exactly.
    """
    command = [sys.executable, "-m", "tests.features.event_child", str(tmp_path)]
    children = [subprocess.Popen([*command, str(seed), "60"], stdout=subprocess.PIPE, text=True) for seed in (1, 2)]
    answered: Counter[str] = Counter()
    for child in children:
        out, _ = child.communicate(timeout=LIMIT_S)
        assert child.returncode == 0
        for word in out.split():
            name, _, count = word.partition("=")
            answered[name] += int(count)
    rows = list(read_all(tmp_path, 0))
    found = counts(tmp_path)
    assert found.accepted == answered.total() == found.stored + found.duplicates + found.dead > 1_000
    assert (found.stored, found.duplicates, found.dead) == (answered["stored"], answered["duplicate"], answered["dead"])
    assert len({row.event.event_id for row in rows}) == len(rows) == found.stored
    assert sorted(row.received for row in rows) == [row.received for row in rows]
    assert min(answered.values()) > 50


def test_barrier_divides(tmp_path: Path) -> None:
    """All that was received before a barrier is below it, all that comes after is not, though the clock stands or runs
    back.
    """
    now = [1_000_000]
    log = EventLog(tmp_path, ROOMY, clock=lambda: now[0])
    other = EventLog(tmp_path, ROOMY, clock=lambda: now[0] - 500)
    barriers = []
    for turn in range(12):
        now[0] += (0, 7, -300)[turn % 3]
        (log if turn % 2 else other).append([item(happened(f"e{turn}-{at}")) for at in range(5)])
        barriers.append(((other if turn % 2 else log).barrier(), 5 * (turn + 1)))
    for moment, before in barriers:
        assert len(list(read_all(tmp_path, 0, received_before=moment))) == before
    received = [row.received for row in read_all(tmp_path, 0)]
    assert received == sorted(set(received))
    assert [moment for moment, _ in barriers] == sorted({moment for moment, _ in barriers})
    log.close()
    other.close()
    again = EventLog(tmp_path, ROOMY, clock=lambda: 0)
    [result] = again.append([item(happened("late"))])
    assert result.received >= barriers[-1][0] > received[-1]  # a new process goes on where the last one was
    again.close()


def test_barriers_hold_beside_writers(tmp_path: Path) -> None:
    """What a barrier says is in the log is in the log for good: nothing appears below it later."""
    logs = [EventLog(tmp_path, ROOMY) for _ in range(3)]

    def write(at: int) -> None:
        for turn in range(40):
            logs[at].append([item(happened(f"{at}-{turn}-{row}")) for row in range(3)])

    threads = [threading.Thread(target=write, args=(at,)) for at in (0, 1)]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        moment = logs[2].barrier()
        seen.append((moment, len(list(read_all(tmp_path, 0, received_before=moment)))))
    for thread in threads:
        thread.join()
    assert seen
    assert [len(list(read_all(tmp_path, 0, received_before=moment))) for moment, _ in seen] == [
        count for _, count in seen
    ]
    assert counts(tmp_path).stored == 240
    for log in logs:
        log.close()


def test_damaged_file_is_set_aside_and_others_follow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file beyond recovery is set aside with a word in the log, a new one goes on with later places, and who had the
    old one open follows.
    """
    log, other = EventLog(tmp_path, ROOMY), EventLog(tmp_path, ROOMY)
    before = log.append([item(happened(f"e{at}")) for at in range(200)])
    other.append([item(happened("other"))])
    log.checkpoint(whole=True)
    log.close()
    script = (  # closing it here would drop SQLite's locks
        "import sys; f = open(sys.argv[1], 'r+b'); f.seek(4096); f.write(b'\\x55' * 40960)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "events.db")], check=True)
    fresh = EventLog(tmp_path, ROOMY)
    results = fresh.append([item(happened("e1"))])
    assert outcomes(results) == ["stored"]
    assert results[0].seq > before[-1].seq
    assert len([path for path in fresh.set_aside() if path.name.endswith("Z")]) == 1
    assert "damaged beyond recovery" in caplog.text
    assert "c1" not in caplog.text
    assert outcomes(other.append([item(happened("e1")), item(happened("e2"))])) == ["duplicate", "stored"]
    assert len(read(tmp_path, before[-1].seq)) == 2
    assert fresh.forget("somebody", 0)["set_aside"] >= 1
    assert not fresh.set_aside()
    fresh.close()
    other.close()


def test_row_that_the_disk_changed_is_told(tmp_path: Path) -> None:
    """A body that is not what was written is marked, and the others are read."""
    log = EventLog(tmp_path, ROOMY)
    log.append([item(happened("e1")), item(happened("e2"))])
    with log.file.transaction() as connection:
        connection.execute("UPDATE events SET body = x'80' WHERE seq = (SELECT max(seq) FROM events)")
    assert [row.intact for row in read(tmp_path, 0)] == [True, False]
    log.close()


def test_heard_is_known_of_duplicates(tmp_path: Path) -> None:
    """A duplicate says whether its first is known to be heard: up to the mark of who took it, or when that one was
    buried.
    """
    alive = consumers.begin(tmp_path)
    log = EventLog(tmp_path, ROOMY, worker=alive.worker)
    first, second = log.append([item(happened("e1")), item(happened("e2"))])
    again = [item(happened("e1")), item(happened("e2"))]
    assert [result.heard for result in log.append(again)] == [False, False]
    log.append([], heard=first.seq)
    assert [result.heard for result in log.append(again)] == [True, False]
    assert list(consumers.dead(tmp_path)) == []
    alive.release()
    [dead] = list(consumers.dead(tmp_path))
    assert dead.worker == alive.worker
    assert consumers.mark_of(tmp_path, dead.worker) == first.seq
    assert list(consumers.dead(tmp_path)) == []  # it is being looked after
    dead.bury(log)
    assert second.seq > first.seq
    other = EventLog(tmp_path, ROOMY)
    assert [result.heard for result in other.append(again)] == [True, True]
    log.close()
    other.close()


def test_too_large_is_a_letter() -> None:
    """An event whose body is beyond its bound becomes a dead letter that is cut off."""
    event = happened("e1")
    big = type(event)("e1", "click", event.occurred_at, "c1", fields={f"f{at}": "x" * 256 for at in range(100)})
    found = event_item(big, time_of(big))
    assert found.reason == "too-large"
    assert len(found.body) == 8 * 1024


def test_reading_needs_a_log(tmp_path: Path) -> None:
    """Where there is no log, counters are zeros, and reading says that there is none; nothing is made by asking."""
    assert counts(tmp_path / "none") == EventCounts()
    assert list(letters(tmp_path / "none")) == []
    with pytest.raises(LogUnavailable), reading(tmp_path / "none"):
        pass
    assert not (tmp_path / "none").exists()
    assert sqlite3.sqlite_version_info >= (3, 35)
    assert os.listdir(tmp_path) == []


def test_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    """Who removes the folder of a running log loses what was in it, and nothing that comes later."""
    log = EventLog(tmp_path / "events", LogLimits(free_bytes_min=0, retry_seconds=0.0))
    log.append([item(happened("e1"))])
    shutil.rmtree(tmp_path / "events")
    with pytest.raises(LogUnavailable):
        log.append([item(happened("e2"))])
    assert outcomes(log.append([item(happened("e2"))])) == ["stored"]
    assert [row.event.event_id for row in read(tmp_path / "events", 0)] == ["e2"]
    log.close()
