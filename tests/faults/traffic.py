"""Clients that load a service with events and decisions, and remember what they were told. Threads of the test's own
process.

Batches hold events of all kinds, some that were sent before, some twice, some whose id another event has, and some that
are none. A batch without an answer is sent again, unchanged, until it is answered, or given up for good.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from features.common import clock
from tests.serving.live import Answer, ask, decision

CUSTOMERS = tuple(f"k{number}" for number in range(300))
VISITORS = tuple(f"v{number}" for number in range(150))
"""Anonymous ids; each is linked to the customer of its number, if at all."""
REGULARS = tuple(f"436{600_000 + number}" for number in range(150))
"""Customers with a history. All so many that no bound on what is kept of one is reached."""
OFFERS = tuple(f"offer-{number:02d}" for number in range(10))
BATCH_EVENTS_MAX = 12
DRAIN_SECONDS_MAX = 180.0
LOST_SECONDS = 0.05
"""After a connection that ended, or was refused: where all start anew, clients must not keep the machine busy."""

Event = dict[str, Any]


class Batch(NamedTuple):
    """Events of one call."""

    events: list[Event]
    none: frozenset[int]
    """Positions of those that cannot be taken."""


class Shopper:
    """One client; its methods belong to its thread, its attributes to whoever reads them after that.

    Attributes:
        sent: every event that was ever sent and could be taken, by its id.
        acknowledged: ids of those with a 202.
        decided: ids of the decisions that were answered.
        accepted: items of the batches that were answered.
        unanswered: items of the batches that were not, which may have been taken or not.
        refused: answers of another status than 200 and 202, or none at all: (status, body).
        degraded: events' answers that said so.
    """

    def __init__(self, port: int, seed: str, pause: float) -> None:
        self._port, self._pause = port, pause
        self._chance, self._seed, self._count = random.Random(seed), seed, 0
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._waiting: deque[Batch] = deque()
        self.sent: dict[str, Event] = {}
        self.acknowledged: set[str] = set()
        self.decided: list[str] = []
        self.refused: list[tuple[int, bytes]] = []
        self.degraded: list[str] = []
        self.accepted = self.unanswered = self.given_up = 0

    def run(self, ended: threading.Event) -> None:
        """Until it is told to end; then what waits is sent until it is answered."""
        while not ended.wait(self._pause):
            if self._chance.random() < 0.3:
                self._decide()
            elif self._waiting and self._chance.random() < 0.7:
                self._send(self._waiting.popleft(), give_up=0.1)
            else:
                self._send(self._drawn(), give_up=0.1)
        end = time.monotonic() + DRAIN_SECONDS_MAX
        while self._waiting and time.monotonic() < end:
            self._send(self._waiting.popleft(), give_up=0.0)
            time.sleep(self._pause)
        self._connection.close()

    @property
    def waiting(self) -> int:
        """Batches that were never answered."""
        return len(self._waiting)

    def _ask(self, path: str, body: Any) -> Answer:
        answer = ask(self._port, "POST", path, body, self._connection)
        if not answer.status:
            time.sleep(LOST_SECONDS)
        return answer

    def _decide(self) -> None:
        customer = self._chance.choice((*CUSTOMERS, *REGULARS))
        body = decision(customer)
        if self._chance.random() < 0.25:
            body = decision(anonymous_id=self._chance.choice(VISITORS))
            del body["customer_id"]
        answer = self._ask("/v1/decisions", body)
        if answer.status == 200:
            self.decided.append(answer.json["decision_id"])
        else:
            self.refused.append((answer.status, answer.body))

    def _send(self, batch: Batch, give_up: float) -> None:
        self.sent.update({one["event_id"]: one for at, one in enumerate(batch.events) if at not in batch.none})
        answer = self._ask("/v1/events", {"events": batch.events})
        if answer.status == 202:
            told = answer.json
            assert told["accepted"] == len(batch.events) == told["stored"] + told["duplicates"] + told["dead"], told
            assert {one["index"] for one in told["refused"]} == batch.none, (told, batch)
            self.accepted += told["accepted"]
            self.acknowledged.update(one["event_id"] for at, one in enumerate(batch.events) if at not in batch.none)
            self.degraded += told["degraded"]
            return
        self.refused.append((answer.status, answer.body))
        self.unanswered += len(batch.events)
        if self._chance.random() < give_up:
            self.given_up += 1
        else:
            self._waiting.append(batch)

    def _drawn(self) -> Batch:
        chance, known = (
            self._chance,
            list(self.acknowledged)[-50:] if self._count < 10_000 else list(self.acknowledged)[:50],
        )
        events = [self._event() for _ in range(chance.randint(1, BATCH_EVENTS_MAX))]
        if known and chance.random() < 0.3:
            events.append(self.sent[chance.choice(known)])
        if chance.random() < 0.2:
            events.append(chance.choice(events))
        none = set()
        if known and chance.random() < 0.1:
            none.add(len(events))
            events.append(self.sent[chance.choice(known)] | {"occurred_at": _text(clock.now() - timedelta(hours=2))})
        if chance.random() < 0.1:
            none.add(len(events))
            events.append(self._event() | {"type": "nothing_like_it"})
        return Batch(events, frozenset(none))

    def _event(self) -> Event:
        """Its moment is its own to the microsecond: what a history keeps by moments is told apart."""
        chance, self._count = self._chance, self._count + 1
        number = chance.randrange(len(VISITORS))
        who = chance.choice(
            (
                {"customer_id": chance.choice(CUSTOMERS)},
                {"customer_id": chance.choice(REGULARS)},
                {"anonymous_id": VISITORS[number]},
            )
        )
        kind: Event = chance.choices(
            (
                {"type": "calls", "fields": {"minutes": chance.randrange(100) / 4, "topic": "data", "country": "at"}},
                {"type": "impression", "offer_id": chance.choice(OFFERS), "channel": "app"},
                {"type": "dismissal", "offer_id": chance.choice(OFFERS)},
                {"type": "accepted", "offer_id": chance.choice(OFFERS), "value": 3.5},
                {"type": "consent", "purposes": {"service": chance.random() < 0.5}},
                {"type": "identify", "anonymous_id": VISITORS[number], "customer_id": CUSTOMERS[number]},
            ),
            (50, 20, 10, 5, 5, 2),
        )[0]
        moment = clock.now() - timedelta(seconds=chance.randrange(60))
        return {"event_id": f"{self._seed}-{self._count}", "occurred_at": _text(moment)} | who | kind


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")


class Told:
    """What all shoppers were told, together."""

    def __init__(self, shoppers: list[Shopper]) -> None:
        self.sent = {name: event for one in shoppers for name, event in one.sent.items()}
        self.acknowledged = {name for one in shoppers for name in one.acknowledged}
        self.decided = [name for one in shoppers for name in one.decided]
        self.refused = [refused for one in shoppers for refused in one.refused]
        self.degraded = [said for one in shoppers for said in one.degraded]
        self.accepted, self.unanswered = sum(one.accepted for one in shoppers), sum(one.unanswered for one in shoppers)
        self.waiting, self.given_up = sum(one.waiting for one in shoppers), sum(one.given_up for one in shoppers)

    def __str__(self) -> str:
        return (
            f"{len(self.acknowledged)} events acknowledged of {len(self.sent)}, {self.accepted} items accepted,"
            f" {self.unanswered} unanswered, {self.given_up} batches given up, {len(self.decided)} decisions answered"
        )


class Crowd:
    """Shoppers at work."""

    def __init__(self, shoppers: list[Shopper]) -> None:
        self.shoppers = shoppers

    @property
    def answers(self) -> int:
        """So far, of any kind but none."""
        return sum(one.accepted + len(one.decided) for one in self.shoppers)

    def told(self) -> Told:
        return Told(self.shoppers)


@contextmanager
def shopping(port: int, seed: int, shoppers: int = 4, pause: float = 0.02) -> Iterator[Crowd]:
    """Shoppers on a service; when left, each sends what waits until it is answered."""
    made, ended, failed = (
        [Shopper(port, f"s{seed:x}-{number}", pause) for number in range(shoppers)],
        threading.Event(),
        list[BaseException](),
    )

    def run(one: Shopper) -> None:
        try:
            one.run(ended)
        except BaseException as failure:  # noqa: BLE001 (told to the test below)
            failed.append(failure)

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in made]
    for thread in threads:
        thread.start()
    try:
        yield Crowd(made)
    finally:
        ended.set()
        for thread in threads:
            thread.join(DRAIN_SECONDS_MAX + 30)
    if failed:
        raise failed[0]


def parsed(body: bytes) -> Any:
    """A problem, for a message."""
    return json.loads(body) if body.startswith(b"{") else body
