"""Servers of the ledger are killed and stopped, and replies are lost: no limit is exceeded, nothing is granted
blindly.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from features.columns.rows import StoreUnavailable
from features.contact_history.history import entries
from features.contact_history.limits import ContactLimit, ContactPolicy
from features.contact_history.takes import Take
from features.ledger.ledger import Ledger, open_ledger
from features.ledger.redis_ledger import RedisLedger
from features.redis_store.address import Address
from features.redis_store.routing import Routes, routes
from tests.faults.takes import ended, take
from tests.features.ledger_writer import (
    ASKED,
    GROUP,
    OFFERS,
    PER_CUSTOMER,
    SCARCE,
    WEB,
    ask,
    started,
)
from tests.stores import Server, find_server
from tests.waiting import until

needs_redis = pytest.mark.skipif(not find_server()[0], reason=find_server()[1] or "there is one")
CUSTOMERS = 40


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str]) -> int:
    """A seed that is printed."""
    drawn = int(os.environ.get("OPPORTUNE_SEED") or random.SystemRandom().randrange(1 << 32))
    with capsys.disabled():
        print(f"\n  replay with OPPORTUNE_SEED={drawn}", end=" ")
    return drawn


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
