"""Processes that take contacts: for tests that need many writers at once, and some to kill."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from features.columns.rows import StoreUnavailable
from features.common import clock
from features.contact_history.history import key_of, word_of
from features.contact_history.limits import ContactLimit, ContactPolicy
from features.contact_history.takes import Take
from features.ledger.ledger import open_ledger

OFFERS = [key_of(f"offer {i}") for i in range(4)]
GROUP, WEB = key_of("loans"), word_of("web")
TRIED = struct.Struct("<dQQB")
"""The take's time, customer or offer, decision, and whether it was granted: one record a take that was answered."""
ASKED = struct.Struct("<ddQQB")
"""When it began and ended by the machine's monotonic clock, customer, decision, and whether it was granted."""

# Windows of some takes: the limits fall and are free again thousands of times in a test.
BUSY = ContactPolicy(
    (ContactLimit(6, 0.005), ContactLimit(20, 0.04), ContactLimit(2, 0.01, "offer"), ContactLimit(12, 0.02, "group")),
    hold_seconds=0.001,
)
PER_CUSTOMER = 10
"""How many contacts a customer may have in the life of a server."""
SCARCE = ContactPolicy((ContactLimit(PER_CUSTOMER, 10_000.0),), hold_seconds=1.0)


def started(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A running process, forked from one that has imported all this."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def hammer(path: Path, log: Path, seed: int) -> None:
    """Takes contacts of one customer, as fast as it goes, until it is killed; writes down what was answered."""
    ledger, drawn = open_ledger("", path, 50, "shop"), random.Random(seed)
    contacts = [BUSY.contact(offer, GROUP, WEB, [0, 1, 2, 3]) for offer in OFFERS]
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        at, decision, now = drawn.randrange(len(OFFERS)), drawn.randrange(1, 1 << 63), clock.now_s()
        found = ledger.take_now(Take("1", decision, now, (contacts[at],), BUSY))
        assert found is not None
        os.write(handle, TRIED.pack(now, OFFERS[at], decision, found.granted))


def ask(url: str, log: Path, seed: int, concurrent: int, customers: int) -> None:
    """Takes contacts of some customers by many tasks at once, until it is killed; writes down what was answered, and
    what was not.
    """
    asyncio.run(_ask(url, log, seed, concurrent, customers))


async def _ask(url: str, log: Path, seed: int, concurrent: int, customers: int) -> None:
    ledger, drawn = open_ledger(url, log, 100, "shop"), random.Random(seed)
    contact = SCARCE.contact(OFFERS[0], GROUP, WEB, [0])
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def one() -> None:
        while True:
            customer, decision, begin = drawn.randrange(customers), drawn.randrange(1, 1 << 63), time.monotonic()
            try:
                history = await ledger.read(str(customer)) if drawn.random() < 0.3 else None
                granted = (
                    await ledger.take(Take(str(customer), decision, clock.now_s(), (contact,), SCARCE), history)
                ).granted
            except StoreUnavailable:
                granted = False
                await asyncio.sleep(0.002)
            os.write(handle, ASKED.pack(begin, time.monotonic(), customer, decision, granted))

    await asyncio.gather(*(one() for _ in range(concurrent)))


def fill_the_disk(telling: Connection, path: Path) -> None:
    """Takes until the file may not grow, tells the error and what was granted; takes again when it may, and tells
    that.
    """
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ledger = open_ledger("", path, 50, "shop")
    contact, granted, error = SCARCE.contact(OFFERS[0], GROUP, WEB, [0]), 0, ""
    sys.dont_write_bytecode = True  # Python before 3.14 keeps bytecode that was cut
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    for customer in range(100_000):
        try:
            found = ledger.take_now(Take(str(customer), 1, clock.now_s(), (contact,), SCARCE))
        except StoreUnavailable as failure:
            error = str(failure)
            break
        assert found is not None and found.granted
        granted += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    end = time.monotonic() + 60
    again = False
    while not again and time.monotonic() < end:
        try:
            found = ledger.take_now(Take("again", 1, clock.now_s(), (contact,), SCARCE))
            again = found is not None and found.granted
        except StoreUnavailable:
            time.sleep(0.01)
    histories = sum(ledger.read_now(str(customer)) != b"" for customer in range(granted + 1))
    telling.send((error, granted, histories, again))
