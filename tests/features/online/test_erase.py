"""One customer's row goes from the online store, whatever its engine, and from what keeps copies of it; LMDB's pages
keep nothing either.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from features.lmdb_store import erase as lmdb_erase
from features.lmdb_store.environment import DATA, MAP_BYTES, attach, attach_folder, current
from features.lmdb_store.record import entity_key
from features.lmdb_store.scrub import scrub
from features.redis_store import erase as redis_erase
from features.redis_store.engine import RedisEngine
from tests.features.tracking_cases import Hand, engine_at, running, told, until
from tests.stores import Server, find_server

VICTIM = "cust-000077"
SECONDS_MAX = 120.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    program, why = find_server()
    if not program:
        pytest.skip(why)
    started = Server(tmp_path / "valkey").start()
    try:
        yield started
    finally:
        started.stop()


def at(file: Path) -> list[int]:
    """Where the id stands in a file."""
    return [match.start() for match in re.finditer(VICTIM.encode(), file.read_bytes())]


def key_of(number: int) -> bytes:
    found = entity_key("customer_id", f"cust-{number:06d}")
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(3))
def test_lmdb_keeps_no_bytes(tmp_path: Path, seed: int) -> None:
    """After many changes the id stands in pages that are no longer used; in the new generation it stands nowhere, and
    all others do.
    """
    chance, root = random.Random(seed), tmp_path / "online"
    environment = attach(root, create=True)
    for _ in range(6):
        with environment.write() as transaction:
            for number in [*chance.sample(range(3_000), 700), 77]:
                transaction.put(key_of(number), chance.randbytes(chance.choice((40, 300, 2_500, 9_000))))
    environment.release()
    data = root / current(root) / DATA
    assert lmdb_erase.exists(root, VICTIM)
    assert lmdb_erase.delete(root, VICTIM)
    assert not lmdb_erase.delete(root, VICTIM)
    assert not lmdb_erase.exists(root, VICTIM)
    assert at(data), "nothing was left behind: the test shows nothing"
    environment = attach(root)
    with environment.begin() as transaction:
        before = list(transaction.cursor())
    environment.release()
    lmdb_erase.compact(root)
    assert [folder.name for folder in root.glob("g-*")] == [current(root)]
    assert at(root / current(root) / DATA) == []
    environment = attach(root)
    with environment.begin() as transaction:
        assert list(transaction.cursor()) == before
    environment.release()


@pytest.mark.parametrize("seed", range(3))
def test_lmdb_is_scrubbed_in_place(tmp_path: Path, seed: int) -> None:
    """What values of before left in free pages, in gaps and behind large values is overwritten while another holds the
    environment open.
    """
    chance, folder = random.Random(seed), tmp_path / "ledger"
    folder.mkdir()
    held = attach_folder(folder.resolve(), MAP_BYTES, sync=False)
    keys = [b"c" + chance.randbytes(16) for _ in range(2_000)]
    for turn in range(5):
        for _ in range(20):
            with held.write() as transaction:
                for key in chance.sample(keys, 40):
                    transaction.put(key, chance.randbytes(chance.choice((40, 120, 400, 3_000))))
        with held.write() as transaction:
            for key in keys[50 * turn : 50 * turn + 10]:
                transaction.put(key, VICTIM.encode() + chance.randbytes(chance.choice((40, 3_000))))
    with held.write() as transaction:
        for key, value in list(transaction.cursor()):
            if value.startswith(VICTIM.encode()):
                transaction.delete(key)
        before = list(transaction.cursor())
    assert at(folder / DATA), "nothing was left behind: the test shows nothing"
    assert scrub(folder, at)
    assert at(folder / DATA) == []
    with held.begin() as transaction:
        assert list(transaction.cursor()) == before
    held.release()


def test_redis_and_near_caches(server: Server) -> None:
    """A customer's key goes, the others stay, and a worker that kept the row is told: it knows nobody of that name any
    more.
    """
    hand = Hand(server)
    hand.put("1", 41.0)
    hand.put("2", 42.0)

    async def case(engine: RedisEngine) -> None:
        assert (await engine.read("1")).known
        assert engine.read_now("1") is not None, "the near cache keeps nothing: the test shows nothing"
        asked = partial(redis_erase.delete, server.url, "shop", "1", SECONDS_MAX)
        assert asked()
        assert not asked()
        await told(engine)
        await until(lambda: (row := engine.read_now("1")) is None or not row.known, "the near cache was not told")
        assert not (await engine.read("1")).known
        assert (await engine.read("2")).known

    running(case, engine_at(server.url))
    assert not redis_erase.exists(server.url, "shop", "1", SECONDS_MAX)
    assert redis_erase.exists(server.url, "shop", "2", SECONDS_MAX)


def test_a_store_that_was_never_made(tmp_path: Path) -> None:
    """Where there is no store there is nobody to forget."""
    assert not lmdb_erase.exists(tmp_path / "online", VICTIM)
    assert not lmdb_erase.delete(tmp_path / "online", VICTIM)
    lmdb_erase.compact(tmp_path / "online")
    assert not (tmp_path / "online").exists()
