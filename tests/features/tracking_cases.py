"""What the tests of the near cache share: an engine with one, a hand that writes the store, and a server that says what
it is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import hiredis
import pytest
import redis
from google.protobuf.timestamp_pb2 import Timestamp

from features.columns.rows import OnlineRow, StoreUnavailable
from features.redis_store.engine import RedisEngine
from features.redis_store.feast_format import entity_key, field_name, timestamp_name
from tests.features.feast_fixtures import view
from tests.features.store_cases import PATIENT_MS, proto
from tests.stores import Server

SHOP = view("shop", {"age": "number"})
KEY = entity_key("customer_id", "1", "shop")
WAIT_SECONDS_MAX = 120.0


class Hand:
    """Writes a store as Feast does, without Feast: one number a customer."""

    def __init__(self, server: Server, db: int = 0) -> None:
        self.client = redis.Redis(port=server.port, db=db)

    def put(self, customer: str, age: float, asking: bool = False) -> None:
        """Writes one customer; `asking`: at a cluster's node that is taking over the slot."""
        stamp = Timestamp(seconds=1_700_000_000).SerializeToString()
        fields = {field_name("shop", "age"): proto("number", age).SerializeToString(), timestamp_name("shop"): stamp}
        pipeline = self.client.pipeline(transaction=False)
        if asking:
            pipeline.execute_command("ASKING")
        pipeline.hset(entity_key("customer_id", customer, "shop"), mapping=fields)  # type: ignore[arg-type]
        pipeline.execute()


@pytest.fixture
def hand(server: Server) -> Iterator[Hand]:
    found = Hand(server)
    found.client.flushall()
    yield found
    found.client.close()


def engine_at(
    url: str, timeout_ms: float = PATIENT_MS, rows: int = 100, clock: Callable[[], float] = lambda: 1.0
) -> RedisEngine:
    """An engine with a near cache; unless it has a clock, time stands still for what it keeps, however slow the
    machine.
    """
    return RedisEngine(url, (SHOP,), timeout_ms, "shop", rows, clock)


def running(work: Callable[[RedisEngine], Awaitable[None]], engine: RedisEngine) -> None:
    """Runs a case with an engine, and closes it."""

    async def all_of_it() -> None:
        try:
            await work(engine)
        finally:
            engine.close()
            await asyncio.sleep(0)

    asyncio.run(all_of_it())


async def told(engine: RedisEngine) -> None:
    """Waits until what the server told before is dealt with: a read asks the store, and replies and news come in one
    order.
    """
    await engine.read("nobody asks for this one")


async def until(condition: Callable[[], Any], why: str) -> None:
    end = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < end, why
        await asyncio.sleep(0.005)


async def until_read(engine: RedisEngine, good: Callable[[OnlineRow], bool]) -> None:
    """Until the store can be read again."""
    end = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        try:
            if good(await engine.read("1")):
                return
        except StoreUnavailable:
            pass
        assert time.monotonic() < end, "the engine did not recover"
        await asyncio.sleep(0.01)


def age_of(row: OnlineRow | None) -> float | None:
    """The number of a row; None of a row that must be read or is unknown."""
    return None if row is None or not row.known else float(row.numbers[0])


FIELDS = [proto("number", 7.0).SerializeToString(), Timestamp(seconds=1_700_000_000).SerializeToString()]
ROW = b"*2\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(value), value) for value in (FIELDS[1], FIELDS[0]))
ALL = b">2\r\n$10\r\ninvalidate\r\n_\r\n"


def news(*keys: bytes) -> bytes:
    return b">2\r\n$10\r\ninvalidate\r\n*%d\r\n" % len(keys) + b"".join(
        b"$%d\r\n%b\r\n" % (len(key), key) for key in keys
    )


class Fake:
    """Answers greetings; to HMGET what the test says, in one segment. None hangs up."""

    def __init__(self) -> None:
        self.answers: dict[bytes, bytes | None] = {
            b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n",
            b"CLIENT": b"+OK\r\n",
            b"HMGET": ROW,
        }
        self.asked: list[bytes] = []
        self.writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Fake:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()
        self._server.close()

    def say(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser, self.writer = hiredis.Reader(), writer
        try:
            while data := await reader.read(65_536):
                parser.feed(data)
                out = b""
                while (words := parser.gets()) is not False:
                    self.asked.append(words[0])
                    answer = self.answers.get(words[0], b"+PONG\r\n")
                    if answer is None:
                        return
                    out += answer
                writer.write(out)
        except ConnectionError:
            pass
        finally:
            writer.close()
