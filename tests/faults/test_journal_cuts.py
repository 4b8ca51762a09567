"""A journal or an event log that ends anywhere: a power cut, a torn write. What was whole before the end is there,
once, and more can be written.

`test_journal_faults.py` holds that of every cut of a journal's last 64 KiB frame by frame; here the shipper takes what
is left.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import subprocess
from bisect import bisect_right
from pathlib import Path

import pytest

from features.events.journal import write_frame
from features.events.journal_frames import damage, frames
from features.events.log import EventLog, counts, read_all
from features.events.sqlite_file import LogLimits, connect
from pipelines.shipping import ship
from pipelines.shipping.state import state_of
from serving.journal.files import OPEN
from serving.journal.files import JournalLimits as JournalLimits
from serving.journal.journal import Journal
from tests.faults.loss_accounting import seed_told
from tests.features.event_child import happened, item
from tests.pipelines.loops import expected, in_lake, line, workspace_in

TAIL_BYTES = 64 * 1024
EACH_BYTES = 4_160
"""At the end of the write-ahead log each byte is cut: a page and the head of its frame, with something to spare."""
STRIDE_BYTES = 61
WRITTEN_TO = 40
"""Cuts after which more is written, by the log itself."""
SHIPPED = 30
ROOMY = LogLimits(free_bytes_min=0, retry_seconds=0.0)
QUICK = JournalLimits(free_bytes_min=0)


@pytest.fixture
def chance(capsys: pytest.CaptureFixture[str]) -> random.Random:
    """Drawn from a seed that is printed."""
    seed = int(os.environ.get("OPPORTUNE_SEED") or random.SystemRandom().randrange(1 << 32))
    seed_told(capsys, seed)
    return random.Random(seed)


@pytest.mark.slow
def test_each_cut_of_a_journal_is_shipped_once(tmp_path: Path, chance: random.Random) -> None:
    """Wherever a journal ends, it is taken in, its whole frames are shipped once, and what is written afterwards as
    well.
    """
    workspace = workspace_in(tmp_path / "shop")
    folder, buffer = workspace.data / "journal", bytearray()
    content, ends = b"", [0]
    for number in range(400):
        write_frame(line(number, shown=1 + number % 5), buffer)
        content += bytes(buffer)
        ends.append(len(content))
    assert len(content) > TAIL_BYTES
    cuts = range(len(content) - TAIL_BYTES, len(content) + 1)
    assert all(not damage(content[:cut]) for cut in (*cuts[::STRIDE_BYTES], *cuts[-600:]))
    torn = 0
    for cut in (cuts[0], cuts[-1], *chance.sample(cuts, SHIPPED)):
        for place in (folder, workspace.lake):
            shutil.rmtree(place, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / f"20261120T230000.000000Z-00000001{OPEN}").write_bytes(content[:cut])
        early = chance.random() < 0.5
        if early:  # while it is open: then the end may still be on its way
            ship.ship(workspace)
        journal = Journal.open(folder, QUICK)
        whole = bisect_right(ends, cut) - 1
        after = line(1_000)
        assert journal.append(after)
        journal.close()
        assert journal.set_aside == 0
        ship.ship(workspace)
        ship.ship(workspace)
        assert in_lake(workspace) == expected(
            [*(line(number, shown=1 + number % 5) for number in range(whole)), after], []
        )
        assert state_of(workspace).unreadable_bytes == cut - ends[whole]
        torn += cut != ends[whole]
    assert torn > SHIPPED // 2


@pytest.mark.slow
def test_each_cut_of_the_event_log_reopens(
    tmp_path: Path, chance: random.Random, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever the write-ahead log ends, the log is the first transactions, each whole or not there, counted exactly,
    and takes more.
    """
    kept, batches = tmp_path / "kept", []
    log = EventLog(tmp_path / "events", ROOMY)
    for turn in itertools.count():
        batches.append([f"{turn}-{row}" for row in range(chance.randrange(1, 30))])
        log.append([item(happened(name)) for name in batches[-1]])
        if log.wal_bytes() > TAIL_BYTES + 40_000:
            break
    # `cp`, for closing a database file within this process would drop SQLite's locks.
    subprocess.run(["cp", "-r", str(tmp_path / "events"), str(kept)], check=True)
    log.close()
    whole, base = (kept / "events.db-wal").read_bytes(), (kept / "events.db").read_bytes()
    names, ends = [name for batch in batches for name in batch], [0, *itertools.accumulate(map(len, batches))]
    size = len(whole)
    each = {*range(size - EACH_BYTES, size + 1), *range(size - TAIL_BYTES, size, STRIDE_BYTES)}
    seen, copy = set(), tmp_path / "copy"
    for cut in sorted(each):
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        (copy / "events.db").write_bytes(base)
        (copy / "events.db-wal").write_bytes(whole[:cut])
        with contextlib.closing(connect(copy / "events.db")) as connection:
            found = [row[0] for row in connection.execute("SELECT seq FROM events ORDER BY seq")]
            stored, accepted = connection.execute("SELECT stored, accepted FROM counted").fetchone()
        assert len(found) in ends and stored == accepted == len(found), cut
        seen.add(len(found))
    assert len(names) in seen and len(seen) >= 3
    for cut in chance.sample(sorted(each), WRITTEN_TO):
        shutil.rmtree(copy)
        copy.mkdir()
        (copy / "events.db").write_bytes(base)
        (copy / "events.db-wal").write_bytes(whole[:cut])
        again = EventLog(copy, ROOMY)
        assert {result.outcome for result in again.append([item(happened(name)) for name in names])} <= {
            "stored",
            "duplicate",
        }
        assert [row.event.event_id for row in read_all(copy, 0)] == names
        assert not again.set_aside() and counts(copy).stored == len(names)
        again.close()
    with capsys.disabled():
        print(
            f"\n  {len(each)} cuts of a write-ahead log of {size} bytes gave {len(seen)} different logs, each of whole"
            " transactions",
            end=" ",
        )


def test_frames_are_read_wherever_a_file_begins(chance: random.Random) -> None:
    """A journal whose beginning was lost gives every whole frame that is left."""
    buffer, content, ends = bytearray(), b"", [0]
    for number in range(40):
        write_frame(line(number), buffer)
        content += bytes(buffer)
        ends.append(len(content))
    for cut in chance.sample(range(len(content)), 200):
        assert sum(1 for _ in frames(content[cut:], [])) == sum(begin >= cut for begin in ends[:-1])
