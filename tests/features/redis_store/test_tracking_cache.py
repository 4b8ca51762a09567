"""The near cache on a real server: a kept row is what the store holds, whatever is written meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.redis_store.engine import RedisEngine
from features.redis_store.feast_format import entity_key, field_name, timestamp_name
from tests.features.redis_store.redis_cases import server
from tests.features.store_cases import proto
from tests.features.tracking_cases import KEY, WAIT_SECONDS_MAX, Hand, age_of, engine_at, hand, running, told
from tests.stores import Server, find_server

__all__ = ["hand", "server"]

pytestmark = pytest.mark.skipif(not find_server()[0], reason=find_server()[1] or "there is one")


# What the server tells
# ----------------------------------------------------------------------------------------------------


def rename(client: Any) -> None:
    client.hset(b"other", b"field", b"value")
    client.rename(b"other", KEY)


CHANGES: dict[str, Callable[[Any], object]] = {
    "HSET of its view": lambda client: client.hset(
        KEY, field_name("shop", "age"), proto("number", 2.0).SerializeToString()
    ),
    "HSET of another view": lambda client: client.hset(KEY, b"other", b"value"),
    "HDEL": lambda client: client.hdel(KEY, timestamp_name("shop")),
    "DEL": lambda client: client.delete(KEY),
    "UNLINK": lambda client: client.unlink(KEY),
    "RENAME onto it": rename,
    "EXPIRE in the past": lambda client: client.expire(KEY, -1),
    "FLUSHDB": lambda client: client.flushdb(),
    "FLUSHALL": lambda client: client.flushall(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_told(server: Server, hand: Hand, change: str) -> None:
    """A row is kept until its key changes in whichever way; then it is what the store holds, and is kept again."""

    async def case(engine: RedisEngine) -> None:
        hand.put("1", 1.0)
        assert engine.read_now("1") is None
        assert age_of(await engine.read("1")) == 1.0
        await told(engine)
        assert age_of(engine.read_now("1")) == 1.0
        CHANGES[change](hand.client)
        await told(engine)
        assert engine.read_now("1") is None
        expected = {"HSET of its view": 2.0, "HSET of another view": 1.0}.get(change)
        assert age_of(await engine.read("1")) == expected
        kept = engine.read_now("1")
        assert kept is not None
        assert age_of(kept) == expected
        assert (engine.near_hits, engine.near_misses) == (2, 2)

    running(case, engine_at(server.url))


def test_expiry_is_told(server: Server, hand: Hand) -> None:
    """A key whose time has come is told when the server removes it, with no other reader's help."""

    async def case(engine: RedisEngine) -> None:
        hand.put("1", 1.0)
        hand.client.pexpire(KEY, 300)
        kept = await engine.read("1")
        end = time.monotonic() + WAIT_SECONDS_MAX
        while engine.read_now("1") is not None:
            assert time.monotonic() < end, "the expiry was not told"
            await told(engine)
        assert age_of(kept) in (1.0, None)  # None: a machine so slow that it had expired before it was read
        assert not (await engine.read("1")).known

    running(case, engine_at(server.url))


def test_unknown_customers_are_kept(server: Server, hand: Hand) -> None:
    """That a customer is unknown is kept too, and told when it changes."""

    async def case(engine: RedisEngine) -> None:
        assert not (await engine.read("1")).known
        kept = engine.read_now("1")
        assert kept is not None
        assert not kept.known
        hand.put("1", 1.0)
        await told(engine)
        assert engine.read_now("1") is None
        assert age_of(await engine.read("1")) == 1.0

    running(case, engine_at(server.url))


def test_other_databases(server: Server, hand: Hand) -> None:
    """The database of the URL is the one that is read; what is written in another costs a read at most."""

    async def case(engine: RedisEngine) -> None:
        third = Hand(server, 3)
        third.put("1", 3.0)
        hand.put("1", 1.0)
        assert age_of(await engine.read("1")) == 3.0
        hand.put("1", 2.0)
        await told(engine)
        assert age_of(engine.read_now("1") or await engine.read("1")) == 3.0
        third.put("1", 4.0)
        await told(engine)
        assert age_of(engine.read_now("1") or await engine.read("1")) == 4.0
        third.client.close()

    running(case, engine_at(f"{server.url}/3"))


@pytest.mark.parametrize("rows", [0, 100])
def test_off_is_off(server: Server, hand: Hand, rows: int) -> None:
    """Without a near cache the connection speaks the old protocol, is not tracked, and nothing is kept or counted."""

    async def case(engine: RedisEngine) -> None:
        await engine.read("1")
        mine = [client for client in hand.client.client_list() if client["lib-name"] != "redis-py"]
        assert [(client["resp"], "t" in client["flags"]) for client in mine] == [("3", True) if rows else ("2", False)]
        assert (engine.read_now("1") is None) == (rows == 0)
        assert engine.near_hits == (1 if rows else 0)

    running(case, engine_at(server.url, rows=rows))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 4), st.floats(allow_nan=False)),
            st.tuples(st.just("delete"), st.integers(0, 4), st.none()),
            st.tuples(st.just("flush"), st.none(), st.none()),
            st.tuples(st.just("read"), st.integers(0, 4), st.integers(0, 1)),
        ),
        max_size=30,
    )
)
def test_drawn_writes_and_reads(server: Server, steps: list[tuple[str, Any, Any]]) -> None:
    """One writes, two engines read, in any order: once a write has been told, each reads what the store holds."""
    hand, holds = Hand(server), dict[str, float]()
    hand.client.flushall()

    async def case() -> None:
        engines = [engine_at(server.url, rows=3), engine_at(server.url)]
        for kind, customer, value in [*steps, *(("read", i, n) for i in range(5) for n in range(2))]:
            name = str(customer)
            if kind == "read":
                row = engines[value].read_now(name) or await engines[value].read(name)
                assert age_of(row) == holds.get(name)
                continue
            if kind == "put":
                holds[name] = value
                hand.put(name, value)
            elif kind == "delete":
                holds.pop(name, None)
                hand.client.delete(entity_key("customer_id", name, "shop"))
            else:
                holds.clear()
                hand.client.flushdb()
            for engine in engines:
                await told(engine)
        for engine in engines:
            engine.close()
        await asyncio.sleep(0)

    asyncio.run(case())
    hand.client.close()


def test_writes_among_reads(server: Server, hand: Hand) -> None:
    """While many read and one writes, a write that was acknowledged and told is never undone, and most reads are
    hits.
    """
    draw, done = random.Random(3), 0.0

    async def case(engine: RedisEngine) -> None:
        nonlocal done
        hand.put("1", 0.0)

        async def reads() -> None:
            while done < 200:
                floor = done
                row = engine.read_now("1") if draw.random() < 0.9 else await engine.read("1")
                found = age_of(row or await engine.read("1"))
                assert found is not None
                assert found >= floor
                await asyncio.sleep(0 if draw.random() < 0.5 else 0.0005)

        readers = [asyncio.ensure_future(reads()) for _ in range(8)]
        for number in range(1, 201):
            await asyncio.to_thread(hand.put, "1", float(number))
            await told(engine)
            done = float(number)
            await asyncio.sleep(draw.random() * 0.003)
        await asyncio.gather(*readers)
        assert engine.near_hits > 100

    running(case, engine_at(server.url))
