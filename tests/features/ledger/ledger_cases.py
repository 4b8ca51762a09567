"""A ledger of each kind in a place of its own, and what the contract's cases take from it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from features.contact_history.history import Entry, key_of, unpacked, word_of
from features.contact_history.limits import ContactLimit, ContactPolicy
from features.contact_history.takes import Take, TakeResult
from features.ledger.budgets import BudgetBound, Moment
from features.ledger.ledger import Ledger, open_ledger
from features.ledger.lmdb_ledger import LmdbLedger
from features.ledger.redis_ledger import RedisLedger
from tests.stores import Server, find_server, form_cluster

KINDS = ("embedded", "redis", "cluster")
PATIENT_MS = 5_000.0
NOW = 1_790_000_000.0
DAY = 86_400.0
WEB, MAIL = word_of("web"), word_of("mail")
DISMISSED = word_of("dismissed")
OFFERS = [key_of(f"offer {i}") for i in range(6)]
GROUPS = [key_of("loans"), key_of("loans"), key_of("cards"), key_of("cards"), 0, 0]
ran: Counter[str] = Counter()
_numbers = itertools.count()


class Shop:
    """A ledger of one kind, in a place of its own."""

    def __init__(self, kind: str, folder: Path, url: str) -> None:
        self.kind, self.folder, self.url = kind, folder, url
        self.runner = asyncio.Runner()
        self.ledger = self.opened()

    def opened(self) -> Ledger:
        ledger = open_ledger(self.url, self.folder / "ledger", PATIENT_MS, f"shop{next(_numbers)}")
        assert isinstance(ledger, LmdbLedger if self.kind == "embedded" else RedisLedger)
        return ledger

    def run(self, work: Any) -> Any:
        async def running() -> Any:
            return await work

        return self.runner.run(running())

    def read(self, customer: str = "1") -> list[Entry]:
        found = self.ledger.read_now(customer)
        assert (found is None) == (self.kind != "embedded")
        again = self.run(self.ledger.read(customer))
        assert found in (None, again)
        return unpacked(again)

    def take(
        self,
        policy: ContactPolicy,
        decision: int,
        now: float,
        offers: list[int],
        channel: int = WEB,
        customer: str = "1",
        informed: bool = False,
    ) -> TakeResult:
        """A take in which all limits concern all offers."""
        contacts = tuple(
            policy.contact(OFFERS[at], GROUPS[at], channel, list(range(len(policy.limits)))) for at in offers
        )
        take = Take(customer, decision, now, contacts, policy)
        history = self.run(self.ledger.read(customer)) if informed else None
        found = None if informed else self.ledger.take_now(take)
        return self.run(self.ledger.take(take, history)) if found is None else found

    def budgets(self, budgets: list[BudgetBound], moment: Moment) -> list[str]:
        found = self.ledger.take_budgets_now(budgets, moment)
        return self.run(self.ledger.take_budgets(budgets, moment)) if found is None else found

    def close(self) -> None:
        self.ledger.close()
        self.runner.run(asyncio.sleep(0))
        self.runner.close()


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where each kind is: one server, and a cluster of three."""
    ran.clear()  # each file counts its own cases
    if not find_server()[0]:
        yield {"embedded": ""}
        return
    folder = tmp_path_factory.mktemp("servers")
    server = Server(folder / "one").start()
    nodes = [
        Server(folder / f"node{i}", "--cluster-enabled", "yes", "--cluster-node-timeout", "1000").start()
        for i in range(3)
    ]
    try:
        form_cluster(nodes)
        yield {"embedded": "", "redis": server.url, "cluster": f"redis+cluster://127.0.0.1:{nodes[1].port}"}
    finally:
        for node in (server, *nodes):
            node.stop()


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path, urls: dict[str, str]) -> Iterator[Shop]:
    if request.param not in urls:
        pytest.skip(find_server()[1])
    found = Shop(request.param, tmp_path, urls[request.param])
    yield found
    found.close()
    ran[request.param] += 1


WEEK = ContactPolicy((ContactLimit(2, 7 * DAY, "offer"), ContactLimit(3, DAY)))
