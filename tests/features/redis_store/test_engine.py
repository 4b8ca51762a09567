"""What only the Redis engine has to bear: late, lost and damaged answers, cancelled reads."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest

from features.columns.rows import OnlineRow, StoreUnavailable
from tests.features.feast_fixtures import feast_store
from tests.features.redis_store.redis_cases import SHOP, arena, row, server
from tests.features.store_cases import Arena, write
from tests.stores import Server, find_server
from tests.waiting import ANSWER_S

__all__ = ["arena", "server"]

pytestmark = pytest.mark.skipif(not find_server()[0], reason=find_server()[1] or "there is one")


def test_a_stopped_server_costs_the_timeout_once(arena: Arena, server: Server) -> None:
    """While a server hangs, reads fail within the timeout, then at once; it is read again within two seconds of its
    return.
    """
    write(arena.store(SHOP), SHOP, [("1", row(1), 1.0)])
    engine = arena.engine(SHOP, timeout_ms=25)
    arena.recovers(engine)
    server.pause()
    try:
        times = []
        for _ in range(60):
            times.append(arena.unavailable(engine))
            arena.run(asyncio.sleep(0.01))
    finally:
        server.resume()
    assert max(times) < 0.15
    assert np.median(times[-20:]) < 0.005
    arena.recovers(engine)


def test_killed_and_restarted(tmp_path: Path) -> None:
    """A killed server is unavailable at once; one that comes back, with what Feast writes again, is read within two
    seconds.
    """
    server = Server(tmp_path / "valkey").start()
    arena = Arena("redis", tmp_path, server)
    try:
        write(arena.store(SHOP), SHOP, [("1", row(1), 1.0)])
        engine = arena.engine(SHOP, timeout_ms=25)
        arena.recovers(engine)
        server.kill()
        assert max(arena.unavailable(engine) for _ in range(30)) < ANSWER_S
        server.start()
        arena.recovers(engine, good=lambda row: not row.known)
        write(feast_store(tmp_path, arena.online, project=arena.project), SHOP, [("1", row(1), 1.0)])
        arena.recovers(engine)
    finally:
        arena.close()
        server.stop()


def test_answers_never_change_hands(arena: Arena, server: Server) -> None:
    """Thousands of reads at once, many cancelled, some late: each gets its own customer's row, or none."""
    write(arena.store(SHOP), SHOP, [(str(i), row(i), 1.0) for i in range(200)])
    engine = arena.engine(SHOP, timeout_ms=60)
    draw = random.Random(7)
    own, gone = 0, 0

    async def read(number: int, patience: float) -> None:
        nonlocal own, gone
        try:
            found: OnlineRow = await asyncio.wait_for(engine.read(str(number)), patience)
        except (StoreUnavailable, TimeoutError):
            gone += 1
            return
        assert found.numbers[0] == number
        assert engine.words.texts[int(found.numbers[1])] == f"city {number}"
        own += 1

    async def all_of_them() -> None:
        for turn in range(30):
            reading = asyncio.gather(
                *(read(draw.randrange(200), draw.choice([0.0005, 0.003, 1.0])) for _ in range(100))
            )
            if turn % 10 == 5:
                await asyncio.sleep(0)
                server.pause()
                await asyncio.sleep(0.08)
                server.resume()
            await reading
            await asyncio.sleep(0.02)

    arena.run(all_of_them())
    assert own + gone == 3_000
    assert own > 300
    assert gone > 100
    arena.recovers(engine)


def test_damaged_values(arena: Arena, server: Server) -> None:
    """A value of another type is missing and counted; the rest of the row is read."""
    from features.redis_store.feast_format import entity_key, field_name

    write(arena.store(SHOP), SHOP, [("1", row(1), 1.0)])
    engine = arena.engine(SHOP)
    key = entity_key("customer_id", "1", arena.project).decode("utf-8", "strict")
    raw = field_name("shop", "age")
    import redis

    client = redis.Redis(port=server.port)
    assert client.hset(key, raw, b"not a number") == 0  # it was there
    found = arena.read(engine, "1")
    assert np.isnan(found.numbers[0])
    assert engine.words.texts[int(found.numbers[1])] == "city 1"
    assert engine.damaged == 1
    client.hset(key, "_ts:shop", b"\xff")
    assert not arena.read(engine, "1").known
    client.delete(key)
    client.set(key, "a string")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        arena.read(engine, "1")
    client.delete(key)
    client.close()
