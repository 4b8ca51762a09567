"""The near cache when its server is lost: without permission, connection, rows or a word, nothing old is served."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from features.columns.rows import StoreUnavailable
from features.redis_store.engine import RedisEngine
from features.redis_store.tracking_cache import NEAR_CACHE_SILENCE_SECONDS_MAX
from tests.features.redis_store.redis_cases import server
from tests.features.tracking_cases import Hand, age_of, engine_at, hand, running, told, until, until_read
from tests.stores import Server, find_server

__all__ = ["hand", "server"]

pytestmark = pytest.mark.skipif(not find_server()[0], reason=find_server()[1] or "there is one")


def test_no_permission(server: Server, hand: Hand) -> None:
    """A user who may not use CLIENT TRACKING reads without the cache."""
    hand.client.execute_command("ACL", "SETUSER", "reader", "on", ">word", "~*", "+hmget", "+ping", "+hello", "+select")

    async def case(engine: RedisEngine) -> None:
        hand.put("1", 1.0)
        for value in (1.0, 2.0):
            hand.put("1", value)
            assert engine.read_now("1") is None
            assert age_of(await engine.read("1")) == value

    running(case, engine_at(server.url.replace("//", "//reader:word@")))


def test_lost_connections_take_their_rows_along(server: Server, hand: Hand) -> None:
    """A connection that the server closes ends what was read through it; the next one is told of changes again."""

    async def case(engine: RedisEngine) -> None:
        for value in (1.0, 2.0, 3.0):
            hand.put("1", value)
            await until_read(engine, lambda row, value=value: age_of(row) == value)  # type: ignore[misc]
            assert age_of(engine.read_now("1")) == value
            hand.client.client_kill_filter(_type="normal", skipme=True)
            await until(lambda: engine.read_now("1") is None, "the loss was not noticed")

    running(case, engine_at(server.url))


def test_killed_and_restarted_empty(tmp_path: Path) -> None:
    """Nothing old is served while the server is away, nor when it is back without its rows."""
    server = Server(tmp_path / "valkey").start()
    hand = Hand(server)

    async def case(engine: RedisEngine) -> None:
        hand.put("1", 1.0)
        await engine.read("1")
        assert engine.read_now("1") is not None
        server.kill()
        await until(lambda: engine.read_now("1") is None, "the loss was not noticed")
        with pytest.raises(StoreUnavailable):
            await engine.read("1")
        await asyncio.to_thread(server.start)
        await until_read(engine, lambda row: not row.known)
        hand.client.close()
        hand.put("1", 2.0)
        await told(engine)
        assert age_of(engine.read_now("1") or await engine.read("1")) == 2.0

    try:
        running(case, engine_at(server.url, timeout_ms=200))
    finally:
        hand.client.close()
        server.stop()


@pytest.mark.parametrize("timeout_ms", [50, 10_000])
def test_a_server_that_falls_silent(tmp_path: Path, timeout_ms: float) -> None:
    """A server that hangs with its connection open is noticed while rows are in use: by the PING, or at the latest by
    the bound.
    """
    server = Server(tmp_path / "valkey").start()
    hand, late = Hand(server), 0.0

    async def case(engine: RedisEngine) -> None:
        nonlocal late
        hand.put("1", 1.0)
        await until_read(engine, lambda row: row.known)
        server.pause()
        try:
            if timeout_ms > 1_000:
                assert engine.read_now("1") is not None
                late = NEAR_CACHE_SILENCE_SECONDS_MAX + 0.1
                assert engine.read_now("1") is None
            else:
                await until(lambda: engine.read_now("1") is None, "the silence was not noticed")
                with pytest.raises(StoreUnavailable):
                    await engine.read("1")
        finally:
            server.resume()
        hand.put("1", 2.0)
        await until_read(engine, lambda row: age_of(row) == 2.0 and age_of(engine.read_now("1")) == 2.0)

    try:
        running(case, engine_at(server.url, timeout_ms, clock=(lambda: late) if timeout_ms > 1_000 else time.monotonic))
    finally:
        hand.client.close()
        server.stop()
