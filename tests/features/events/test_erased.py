"""What leaves the event log: forgotten units for good, old events once they were shipped and heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.events.dead_letters import letters
from features.events.log import EventLog, counts, read, reading
from features.events.log_errors import LogUnavailable
from features.events.rows import FORGOTTEN, EventCounts, dead_item
from features.events.semantics import time_of
from tests.features.event_child import happened, item
from tests.features.events.log_cases import ROOMY, outcomes


def test_forgotten_for_good(tmp_path: Path) -> None:
    """Nothing of a forgotten unit stays in any file, its late events are dropped and counted, its later ones are
    kept.
    """
    folder = tmp_path / "events"
    log = EventLog(folder, ROOMY)
    canary = "canary-77"
    letter = dead_item("field-type", "", b'{"customer_id":["%s"],"event_id":1}' % canary.encode())
    near = dead_item("field-type", "", b'{"customer_id":["%s8"]}' % canary.encode())
    log.append([item(happened(f"e{at}", unit=canary)) for at in range(50)] + [item(happened("other")), letter, near])
    log.append([item(happened("e1", 9.0, unit=canary))])
    moment = time_of(happened("x", minutes=5))
    gone = log.forget(canary, moment)
    assert gone == {"events": 50, "dead_letters": 2, "set_aside": 0, "left": 0}
    assert log.forget(canary, moment)["events"] == 0
    results = log.append([item(happened("e1", unit=canary)), item(happened("new", unit=canary, minutes=6))])
    assert outcomes(results) == [FORGOTTEN, "stored"]
    found = counts(folder)
    assert found == EventCounts(56, 52, 0, 4, 1)
    assert found.accepted == found.stored + found.duplicates + found.dead
    assert [(one.reason, one.unit, one.body) for one in letters(folder)][-1] == (FORGOTTEN, "", b"")
    assert len(list(letters(folder))) == 2
    log.forget(canary, moment + 10**9)
    log.close()
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    assert canary.encode() + b"8" in content
    assert canary.encode() not in content.replace(canary.encode() + b"8", b"")


def test_pruned_when_shipped_and_heard(tmp_path: Path) -> None:
    """Old events go once they were shipped and heard, old letters by their own time; the counters stay."""
    now = [1_000]
    log = EventLog(tmp_path, ROOMY, clock=lambda: now[0], worker=5)
    results = log.append([item(happened(f"e{at}")) for at in range(10)] + [dead_item("field-type", "", b"{}")])
    assert log.prune(before=10**9, shipped=results[7].seq, dead_before=0) == {
        "events": 0,
        "dead_letters": 0,
    }  # nobody has heard of them
    log.append([], heard=results[5].seq)
    assert log.prune(before=results[3].received, shipped=results[7].seq, dead_before=0) == {
        "events": 3,
        "dead_letters": 0,
    }
    assert log.prune(before=10**9, shipped=results[7].seq, dead_before=2_000) == {"events": 3, "dead_letters": 1}
    log.append([], heard=results[9].seq)
    assert log.prune(before=10**9, shipped=results[7].seq, dead_before=2_000) == {"events": 2, "dead_letters": 0}
    assert [row.seq for row in read(tmp_path, 0)] == [results[8].seq, results[9].seq]
    assert counts(tmp_path) == EventCounts(11, 10, 0, 1, 0)
    log.close()


def test_readers_that_keep_deleted_bytes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a reader looks at what was deleted, forgetting is not done, and says so; asked again later, it is."""
    monkeypatch.setattr("features.events.log.WAL_TRIES_MAX", 1)
    log = EventLog(tmp_path, ROOMY)
    log.append([item(happened("e1"))])
    with reading(tmp_path) as reader:
        reader.execute("BEGIN")
        assert len(reader.execute("SELECT * FROM events").fetchall()) == 1
        with pytest.raises(LogUnavailable, match="try again"):
            log.forget("c1", 1)
        reader.execute("COMMIT")
    assert log.forget("c1", 1)["left"] == 0
    assert log.wal_bytes() == 0
    log.close()
