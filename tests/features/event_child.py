"""Processes of their own that write an event log: from a few ids, until they are killed, until the disk is full."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import resource
import struct
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from features.common.types import Event
from features.events.log import EventLog
from features.events.log_errors import LogUnavailable
from features.events.rows import Item, dead_item, event_item
from features.events.semantics import time_of
from features.events.sqlite_file import LogLimits
from features.events.writer import EventWriter

ACK = struct.Struct("<II")
"""Lane and number of an event that was acknowledged."""
LANES = 3
MORNING = datetime(2026, 11, 22, 9, tzinfo=UTC)


def happened(event_id: str, value: float = 1.0, unit: str = "c1", minutes: int = 0) -> Event:
    """A click of a small shop."""
    return Event(event_id, "click", MORNING + timedelta(minutes=minutes), unit, offer_id="phone", value=value)


def item(event: Event) -> Item:
    return event_item(event, time_of(event))


def drawn(chance: random.Random) -> Item:
    """One of few ids and few bodies, so that duplicates and conflicts are many; some are poison."""
    if chance.random() < 0.1:
        return dead_item("field-type", "", b'{"event_id":7}')
    return item(happened(f"e{chance.randrange(400)}", float(chance.randrange(2))))


async def batches(folder: Path, seed: int, rounds: int) -> None:
    chance, writer = random.Random(seed), EventWriter(folder)
    asked = [[drawn(chance) for _ in range(chance.randrange(1, 60))] for _ in range(rounds)]
    for at in range(0, rounds, 8):
        for results in await asyncio.gather(*(writer.append(batch) for batch in asked[at : at + 8])):
            outcomes = Counter(result.outcome for result in results)
            print(*(f"{outcome}={count}" for outcome, count in outcomes.items()))
    writer.close()


def flood(acks: Any, folder: Path, seed: int) -> None:
    """Appends until it is killed; tells each event that was acknowledged, by 8 bytes."""

    async def one(writer: EventWriter, lane: int) -> None:
        for turn in itertools.count():
            names = range(8 * turn, 8 * turn + 8)
            await writer.append([item(happened(f"{seed}-{lane}-{name}")) for name in names])
            os.write(acks.fileno(), b"".join(ACK.pack(lane, name) for name in names))

    async def all_of_them() -> None:
        writer = EventWriter(folder, LogLimits(free_bytes_min=0, wal_bytes=100_000, wal_bytes_max=400_000))
        await asyncio.gather(*(one(writer, lane) for lane in range(LANES)))

    asyncio.run(all_of_them())


def fill(told: Any, folder: Path, bytes_more: int) -> None:
    """Appends until files may not grow, then until they may again; tells a line for each batch."""
    log = EventLog(folder, LogLimits(free_bytes_min=0, retry_seconds=0.05))
    log.append([item(happened("first"))])
    sys.dont_write_bytecode = True  # Python before 3.14 keeps bytecode that was cut
    largest = max(path.stat().st_size for path in folder.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + bytes_more, resource.RLIM_INFINITY))
    refused = 0
    for turn in itertools.count():
        if refused == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        try:
            results = log.append([item(happened(f"{turn}-{row}")) for row in range(20)])
        except LogUnavailable as lack:
            refused += 1
            told.send((turn, lack.reason))
            time.sleep(0.06)
            continue
        told.send((turn, "".join({result.outcome for result in results})))
        if refused >= 5:
            break
    log.close()


if __name__ == "__main__":
    folder, seed, rounds = sys.argv[1:]
    asyncio.run(batches(Path(folder), int(seed), int(rounds)))
