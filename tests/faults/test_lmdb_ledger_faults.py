"""Writers of the embedded ledger are killed, its disk is full and its files are damaged: no limit is exceeded,
nothing is granted blindly.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import shutil
import time
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from features.columns.rows import StoreUnavailable
from features.common import clock
from features.contact_history.history import entries
from features.contact_history.takes import Take
from features.ledger.ledger import open_ledger
from features.ledger.lmdb_ledger import LmdbLedger
from tests.depth import rounds
from tests.faults.takes import CONTACT, ended, take
from tests.features.ledger_writer import (
    BUSY,
    GROUP,
    OFFERS,
    SCARCE,
    TRIED,
    WEB,
    fill_the_disk,
    hammer,
    started,
)
from tests.waiting import until

TAKES_MIN = rounds(10_000)
KILLS_MIN = 12


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str]) -> int:
    """A seed that is printed."""
    drawn = int(os.environ.get("OPPORTUNE_SEED") or random.SystemRandom().randrange(1 << 32))
    with capsys.disabled():
        print(f"\n  replay with OPPORTUNE_SEED={drawn}", end=" ")
    return drawn


def most_within(times: list[float], window: float) -> int:
    """The largest number of moments in any (t - window, t]."""
    times = sorted(times)
    return max((i + 1 - bisect_right(times, t - window) for i, t in enumerate(times)), default=0)


def test_many_writers_and_some_are_killed(tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Eight processes take contacts of one customer, one is killed now and then: no limit is exceeded, and nobody waits
    for the dead.
    """
    drawn, logs = random.Random(seed), [tmp_path / f"log{i}" for i in range(8)]
    writers = [started(hammer, tmp_path / "ledger", log, drawn.random()) for log in logs]
    size = lambda at: logs[at].stat().st_size // TRIED.size if logs[at].exists() else 0  # noqa: E731
    tried = lambda: sum(map(size, range(8)))  # noqa: E731
    kills, begun = 0, [0] * 8
    try:
        while tried() < TAKES_MIN or kills < KILLS_MIN:
            before, at = tried(), drawn.randrange(8)
            until(lambda: tried() > before + 500 and size(at) > begun[at], "takes after a writer was killed")  # noqa: B023 - awaited here
            time.sleep(drawn.random() * 0.005)
            assert writers[at].is_alive()
            ended([writers[at]])
            kills, begun[at] = kills + 1, size(at)
            writers[at] = started(hammer, tmp_path / "ledger", logs[at], drawn.random())
    finally:
        ended(writers)
    # A log may end in the middle of a record where its writer was killed; a take may be done and not written down.
    records = [record for log in logs if log.exists() for record in _records(log)]
    granted = [(now, offer) for now, offer, _, said in records if said]
    assert len(records) >= TAKES_MIN
    assert len(granted) > 200
    everything, by_offer = (
        [now for now, _ in granted],
        {o: [now for now, offer in granted if offer == o] for o in OFFERS},
    )
    most = [most_within(everything, limit.window_seconds) for limit in BUSY.limits]
    most[2] = max(most_within(times, BUSY.limits[2].window_seconds) for times in by_offer.values())
    allowed = [limit.contacts_max for limit in BUSY.limits]
    assert all(found <= limit for found, limit in zip(most, allowed, strict=True)), (most, allowed)
    assert most[0] == BUSY.limits[0].contacts_max, "the limits were reached"
    ledger = open_ledger("", tmp_path / "ledger", 50, "shop")
    contact = BUSY.contact(OFFERS[0], GROUP, WEB, [0, 1, 2, 3])
    assert ledger.take_now(Take("1", 1, clock.now_s() + 10, (contact,), BUSY)) == ((-1,),)
    ledger.close()
    with capsys.disabled():
        print(f"{len(records)} takes, {len(granted)} granted, {kills} writers killed", end=" ")


def _records(log: Path) -> list[tuple[Any, ...]]:
    data = log.read_bytes()
    return list(TRIED.iter_unpack(data[: len(data) // TRIED.size * TRIED.size]))


def filled(path: Path, customers: int = 300, check_seconds: float = 0.0, **options: Any) -> LmdbLedger:
    ledger = LmdbLedger(path, check_seconds, **options)
    for customer in range(customers):
        assert ledger.take_now(take(str(customer), 1)).granted
    return ledger


def test_the_map_grows_and_is_bounded(tmp_path: Path) -> None:
    """A ledger outgrows its first map, and says so when it has reached its last one; what was taken stays."""
    first, last = 1 << 17, 1 << 18
    ledger, other = (
        filled(tmp_path / "ledger", 200, map_bytes=first, map_bytes_max=last),
        LmdbLedger(tmp_path / "ledger"),
    )
    with pytest.raises(StoreUnavailable, match="map_bytes_max"):
        for last_one in range(200, 10_000):
            ledger.take_now(take(str(last_one), 1))
    with pytest.raises(StoreUnavailable, match="full"):
        ledger.take_now(take(str(last_one), 1))
    assert all(other.read_now(str(i)) for i in range(last_one))
    assert last_one > 400
    ledger.close()
    other.close()
    larger = LmdbLedger(tmp_path / "ledger")
    assert larger.take_now(take("new", 1)).granted
    larger.close()


def test_a_full_disk(tmp_path: Path) -> None:
    """When the disk takes no more, takes are refused, what was granted before is there, and they go on when there is
    room.
    """
    listening, telling = multiprocessing.get_context("forkserver").Pipe(duplex=False)
    process = started(fill_the_disk, telling, tmp_path / "ledger")
    try:
        assert listening.poll(60), "the writer said nothing"
        error, granted, histories, again = listening.recv()
    finally:
        ended([process])
        listening.close()
        telling.close()
    assert "cannot write to the ledger" in error
    assert granted > 100
    assert histories == granted
    assert again


def _cut(file: Path) -> None:
    with file.open("r+b") as handle:
        handle.truncate(file.stat().st_size // 2 // 4096 * 4096)


def _overwrite(file: Path) -> None:
    with file.open("r+b") as handle:
        handle.write(b"\xa5" * 16_384)


def _empty(file: Path) -> None:
    with file.open("r+b") as handle:
        handle.truncate(0)


def _remove(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("damage", [_cut, _overwrite, _empty, _remove])
def test_a_damaged_file(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """A ledger whose file is damaged or lost grants nothing and is not begun anew; with the file back, it goes on."""
    path = tmp_path / "ledger"
    filled(path).close()
    shutil.copy(path / "data.mdb", tmp_path / "kept")
    damage(path / "data.mdb")
    ledger = LmdbLedger(path, check_seconds=0.0)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            ledger.take_now(take("1", 2))
        with pytest.raises(StoreUnavailable):
            ledger.read_now("1")
    (path / "data.mdb").unlink(missing_ok=True)
    shutil.copy(tmp_path / "kept", path / "data.mdb")
    assert ledger.take_now(take("1", 2)).granted
    assert len(entries(ledger.read_now("1"))) == 2
    ledger.close()


@pytest.mark.parametrize("damage", [_cut, _remove, lambda file: shutil.rmtree(file.parent)])
def test_a_file_is_damaged_in_use(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """A ledger that loses its file or folder while it is open refuses from then on, and does not end the process."""
    ledger = filled(tmp_path / "ledger")
    damage(tmp_path / "ledger" / "data.mdb")
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            ledger.take_now(take("1", 2))
    with pytest.raises(StoreUnavailable):
        ledger.sync()
    ledger.close()


def test_a_file_is_cut_between_two_looks(tmp_path: Path) -> None:
    """A file that was cut off is noticed by the next take, before it touches a page that is gone."""
    ledger = filled(tmp_path / "ledger", check_seconds=1_000.0)
    _cut(tmp_path / "ledger" / "data.mdb")
    with pytest.raises(StoreUnavailable, match="cut off"):
        ledger.take_now(take("1", 2))
    ledger.close()


def test_damaged_bytes(tmp_path: Path) -> None:
    """A history whose bytes were changed on disk fails its checksum: that customer is refused, others are not, and
    forgetting mends it.
    """
    ledger = filled(tmp_path / "ledger")
    history = ledger.read_now("7")
    ledger.close()
    file = tmp_path / "ledger" / "data.mdb"
    data = bytearray(file.read_bytes())
    assert data.count(history) >= 1
    at = -1
    while (at := data.find(history, at + 1)) >= 0:
        data[at + 20] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreUnavailable, match="forget"):
        ledger = LmdbLedger(tmp_path / "ledger")
        ledger.take_now(take("7", 2))
    assert ledger.take_now(take("8", 2)).granted
    asyncio.run(ledger.forget("7"))
    assert ledger.take_now(take("7", 2)).granted
    ledger.close()


def test_sweeping(tmp_path: Path) -> None:
    """Histories that are beyond the horizon are removed, some at a time, and no others."""
    ledger = filled(tmp_path / "ledger", 450)
    later = clock.now_s() + 20_000
    assert ledger.take_now(Take("3", 2, later, (CONTACT,), SCARCE)).granted
    assert ledger.sweep(SCARCE.horizon_seconds, clock.now_s()) == 0
    assert sum(ledger.sweep(SCARCE.horizon_seconds, later) for _ in range(6)) == 449
    assert [bool(ledger.read_now(customer)) for customer in ("2", "3", "4")] == [False, True, False]
    ledger.close()
