"""A process of clients that hammer servers: kept connections, each with one request on its way, and a line of the log
an answer.

It runs apart from the test that started it, so that neither waits for the other, and says nothing but the log.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import msgspec

RETRY_SECONDS = 0.02
STAGGER_SECONDS = 0.01
KEPT_REQUESTS = 500
"""So many on one connection; then another is made, which another worker may accept."""
CHANNELS = ("app", "web", "shop")
PLACEMENTS = ("home", "bill", "help")
TURN_REQUESTS = 200
"""So many requests in a row are mostly about the same customer."""
CONSTANT = "436600001"
"""A customer who is asked about now and then, from the first request to the last."""


class Asked(msgspec.Struct, array_like=True, frozen=True):
    """One request and what became of it. Times are of the machine's monotonic clock."""

    begin: float
    end: float
    status: int
    """0: the connection ended before the answer came."""
    port: int
    customer: str
    channel: str
    placement: str
    decision: str
    offers: list[str]
    degraded: list[str]
    config: str = ""

    @property
    def time(self) -> float:
        """When it was decided, seconds since 1970: what its contacts are counted at."""
        return int(self.decision.partition("-")[0], 16) / 1e6

    @property
    def worker(self) -> tuple[int, str]:
        """Who answered."""
        return self.port, self.decision.split("-")[1]


class _Shown(msgspec.Struct):
    offer_id: str


class _Answer(msgspec.Struct):
    decision_id: str
    offers: list[_Shown]
    degraded: list[str]
    config: str


class Log:
    """What a hammer wrote so far."""

    def __init__(self, file: Path) -> None:
        self.asked: list[Asked] = []
        self._file, self._read = file, 0

    def look(self) -> list[Asked]:
        """All that is there by now."""
        if self._file.exists():
            with self._file.open("rb") as handle:
                handle.seek(self._read)
                lines, end, _ = handle.read().rpartition(b"\n")  # the last one may be on its way
            self._read += len(lines) + len(end)
            self.asked += map(_decode_line, lines.split(b"\n") if lines else ())
        return self.asked

    def count(self, since: float = 0.0) -> int:
        """Answers to requests that began after a moment."""
        return sum(asked.begin > since and asked.status > 0 for asked in self.look())


_decode_line = msgspec.json.Decoder(Asked).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


def hammering(ports: list[int], log: Path, connections: int, seed: int) -> BaseProcess:
    """A process that asks until it is killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_run, args=(ports, log, connections, seed), daemon=True)
    process.start()
    return process


def _run(ports: list[int], log: Path, connections: int, seed: int) -> None:
    asyncio.run(_all(ports, log, connections, seed))


async def _all(ports: list[int], log: Path, connections: int, seed: int) -> None:
    drawn, handle, numbers = (
        random.Random(seed),
        os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        itertools.count(),
    )

    def next_one() -> tuple[str, str, str, bytes]:
        chance, channel, turn = drawn.random(), drawn.choice(CHANNELS), next(numbers) // TURN_REQUESTS
        customer = (
            f"{seed}-{turn}" if chance < 0.8 else CONSTANT if chance < 0.9 else f"436{600_000 + drawn.randrange(500)}"
        )
        placement = drawn.choices(PLACEMENTS, (5, 4, 1))[0]
        body = f'{{"customer_id":"{customer}","placement":"{placement}","context":{{"channel":"{channel}","hour":18}}}}'
        head = (
            "POST /v1/decisions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length:"
            f" {len(body)}\r\n\r\n"
        )
        return customer, channel, placement, (head + body).encode()

    await asyncio.gather(
        *(_client(ports[at % len(ports)], at * STAGGER_SECONDS, next_one, handle) for at in range(connections))
    )


async def _client(port: int, wait: float, next_one: Callable[[], tuple[str, str, str, bytes]], handle: int) -> None:
    """One connection after the other; what was lost with one is written down, and another request is next."""
    loop = asyncio.get_running_loop()
    wire: _Wire | None = None
    await asyncio.sleep(wait)
    for number in itertools.count(1):
        customer, channel, placement, request = next_one()
        begin = time.monotonic()
        try:
            if wire is None:
                _, wire = await loop.create_connection(_Wire, "127.0.0.1", port)
            status, body = await wire.ask(request)
        except OSError:
            wire = None
            os.write(
                handle,
                msgspec.json.encode(Asked(begin, time.monotonic(), 0, port, customer, channel, placement, "", [], []))
                + b"\n",
            )
            await asyncio.sleep(RETRY_SECONDS)
            continue
        told = _decode_answer(body) if status == 200 else _Answer("", [], [body.decode()], "")
        shown = [offer.offer_id for offer in told.offers]
        asked = Asked(
            begin,
            time.monotonic(),
            status,
            port,
            customer,
            channel,
            placement,
            told.decision_id,
            shown,
            told.degraded,
            told.config,
        )
        os.write(handle, msgspec.json.encode(asked) + b"\n")
        if number % KEPT_REQUESTS == 0:
            wire.close()
            wire = None


class _Wire(asyncio.Protocol):
    """Just enough HTTP for one answer after the other."""

    def __init__(self) -> None:
        self._got = b""
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Status and body; OSError when the connection ends first."""
        self._waiting, self._got = asyncio.get_running_loop().create_future(), b""
        if self._transport is None or self._transport.is_closing():
            self._waiting.set_exception(ConnectionResetError())
        else:
            self._transport.write(request)
        return self._waiting

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found or self._waiting is None or self._waiting.done():
            return
        at = head.lower().index(b"content-length:") + 15
        if len(body) >= int(head[at:].partition(b"\r\n")[0]):
            self._waiting.set_result((int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError())
