"""Writers are killed, servers are killed and stopped, files are damaged, replies are lost: no limit is exceeded,
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
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from features.columns.rows import StoreUnavailable
from features.common import clock
from features.contact_history.history import entries
from features.contact_history.limits import ContactLimit, ContactPolicy
from features.contact_history.takes import Take
from features.ledger.ledger import Ledger, open_ledger
from features.ledger.lmdb_ledger import LmdbLedger
from features.ledger.redis_ledger import RedisLedger
from features.redis_store.address import Address
from features.redis_store.routing import Routes, routes
from tests.depth import rounds
from tests.features.ledger_writer import (
    ASKED,
    BUSY,
    GROUP,
    OFFERS,
    PER_CUSTOMER,
    SCARCE,
    TRIED,
    WEB,
    ask,
    fill_the_disk,
    hammer,
    started,
)
from tests.stores import Server, find_server
from tests.waiting import until

needs_redis = pytest.mark.skipif(not find_server()[0], reason=find_server()[1] or "there is one")
TAKES_MIN = rounds(10_000)
KILLS_MIN = 12
CUSTOMERS = 40
CONTACT = SCARCE.contact(OFFERS[0], GROUP, WEB, [0])


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str]) -> int:
    """A seed that is printed."""
    drawn = int(os.environ.get("OPPORTUNE_SEED") or random.SystemRandom().randrange(1 << 32))
    with capsys.disabled():
        print(f"\n  replay with OPPORTUNE_SEED={drawn}", end=" ")
    return drawn


def ended(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.kill()
        process.join()
        process.close()


def most_within(times: list[float], window: float) -> int:
    """The largest number of moments in any (t - window, t]."""
    times = sorted(times)
    return max((i + 1 - bisect_right(times, t - window) for i, t in enumerate(times)), default=0)


# Embedded
# -----------------------------------------------------------------------------------------------------------------


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


def take(customer: str, decision: int, policy: ContactPolicy = SCARCE) -> Take:
    return Take(customer, decision, clock.now_s(), (CONTACT,), policy)


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


# Redis
# --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path / "valkey").start()
    yield found
    found.stop()


class Crowd:
    """Two processes with 32 takes on their way each."""

    def __init__(self, server: Server, folder: Path, seed: int) -> None:
        self.logs = [folder / "log0", folder / "log1"]
        self.processes = [started(ask, server.url, log, seed + i, 32, CUSTOMERS) for i, log in enumerate(self.logs)]

    def records(self) -> list[tuple[float, float, int, int, int]]:
        """What was asked so far: begin, end, customer, decision, granted."""
        found: list[Any] = []
        for log in self.logs:
            data = log.read_bytes() if log.exists() else b""
            found += ASKED.iter_unpack(data[: len(data) // ASKED.size * ASKED.size])
        return found

    def more(self, count: int) -> None:
        """Waits for some more takes of each process, begun from now on."""
        begin = time.monotonic()
        until(lambda: sum(record[0] > begin for record in self.records()) > count, "takes")


def granted(records: list[Any], begin: float, end: float) -> Counter[int]:
    """Grants by customer of the takes that began in a span of time."""
    return Counter(customer for began, _, customer, _, said in records if said and begin <= began < end)


@needs_redis
def test_a_server_is_killed_and_begins_anew(
    server: Server, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a server is away nothing is granted; each of its lives, which begins without memory, grants each customer
    what one may have.
    """
    crowd = Crowd(server, tmp_path, seed)
    bounds = [0.0]
    """What began while a server was away is of its next life."""
    counted = lambda: granted(crowd.records(), bounds[-1], float("inf")).total()  # noqa: E731
    try:
        for _ in range(2):
            until(lambda: counted() > 300, "grants")
            server.kill()
            away = time.monotonic()
            bounds.append(away)
            crowd.more(100)
            back = time.monotonic()
            server.start()
            records = crowd.records()
            assert sum(began > away and finished < back for began, finished, *_ in records) > 50
            assert not [record for record in records if record[0] > away and record[1] < back and record[4]]
        until(lambda: counted() > 300, "grants")
        crowd.more(1_500)
    finally:
        ended(crowd.processes)
    records = crowd.records()
    counts = [granted(records, begin, end) for begin, end in pairwise([*bounds, float("inf")])]
    assert [max(found.values()) for found in counts] == [PER_CUSTOMER] * 3
    with capsys.disabled():
        print(f"{len(records)} takes, granted in three lives {[found.total() for found in counts]}", end=" ")


@needs_redis
def test_a_server_is_stopped_and_goes_on(
    server: Server, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a server hangs nothing is granted; whatever it still does with what was sent, no customer gets more than
    one may have.
    """
    server.pause()
    crowd = Crowd(server, tmp_path, seed)
    try:
        crowd.more(60)
        server.resume()
        until(lambda: granted(crowd.records(), 0, float("inf")).total() > 20, "a first grant")
        server.pause()
        away = time.monotonic()
        crowd.more(60)
        back = time.monotonic()
        records = crowd.records()
        assert not [record for record in records if record[0] > away and record[1] < back and record[4]]
        server.resume()
        crowd.more(1_500)
    finally:
        server.resume()
        ended(crowd.processes)
    records = crowd.records()
    found = granted(records, 0, float("inf"))
    assert max(found.values()) <= PER_CUSTOMER
    histories = asyncio.run(_histories(open_ledger(server.url, tmp_path, 2_000, "shop")))
    assert [len(history) for history in histories] == [PER_CUSTOMER] * CUSTOMERS
    for customer, history in enumerate(histories):
        told = {decision for _, _, asked, decision, said in records if said and asked == customer}
        assert told <= set(history["decision"].tolist()), "what was granted is in the history"
    with capsys.disabled():
        print(f"{len(records)} takes, {found.total()} granted, {CUSTOMERS * PER_CUSTOMER} taken", end=" ")


async def _histories(ledger: Ledger) -> list[Any]:
    found = [entries(await ledger.read(str(customer))) for customer in range(CUSTOMERS)]
    ledger.close()
    return found


class Losing:
    """Routes on which the reply to some calls is lost after the server has done its work."""

    def __init__(self, within: Routes) -> None:
        self.within = within
        self.losing = False

    async def call(self, key: bytes, payload: bytes, reading: Any = None) -> object:
        reply = await self.within.call(key, payload, reading)
        if self.losing:
            raise StoreUnavailable("the reply was lost")
        return reply

    def close(self) -> None:
        self.within.close()


@needs_redis
def test_a_lost_reply(server: Server) -> None:
    """A take whose reply is lost is repeated without being counted twice; another decision finds the place taken until
    the hold ends.
    """

    async def lost() -> None:
        losing = Losing(routes(Address.parse(server.url), 2.0))
        ledger = RedisLedger(server.url, 2_000, "shop", shared=lambda: losing)
        policy = ContactPolicy((ContactLimit(1, 100, counts="impressions"),), hold_seconds=30)
        contact = policy.contact(OFFERS[0], GROUP, WEB, [0])
        for customer, informed in (("1", False), ("2", True)):
            asked = Take(customer, 1, 1_000.0, (contact,), policy)
            losing.losing = True
            with pytest.raises(StoreUnavailable):
                await ledger.take(asked, b"" if informed else None)
            losing.losing = False
            assert (await ledger.take(asked, b"" if informed else None)).granted
            assert (await ledger.take(asked)).granted
            assert len(entries(await ledger.read(customer))) == 1
            assert (await ledger.take(Take(customer, 2, 1_029.0, (contact,), policy))).fell == (0,)
            assert (await ledger.take(Take(customer, 2, 1_030.0, (contact,), policy))).granted
        losing.close()
        await asyncio.sleep(0)

    asyncio.run(lost())


@needs_redis
def test_what_is_no_history(server: Server, tmp_path: Path) -> None:
    """A key that holds something else, and a server that refuses, are unavailable and never an empty history."""

    async def foreign() -> None:
        ledger = RedisLedger(server.url, 2_000, "shop")
        key = ledger.read_request("1")[0].decode("latin-1")
        assert all(ord(character) < 128 for character in key)
        for write in (("SET", key, "x" * 50), ("SADD", key, "x")):
            server.ask("DEL", key)
            server.ask(*write)
            for work in (ledger.read("1"), ledger.take(take("1", 1)), ledger.note("1", SCARCE, [], 1.0)):
                with pytest.raises(StoreUnavailable):
                    await work
        await ledger.forget("1")
        assert (await ledger.take(take("1", 1))).granted
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreUnavailable, match="OOM|memory"):
            await ledger.take(take("2", 1))
        ledger.close()
        await asyncio.sleep(0)

    asyncio.run(foreign())
