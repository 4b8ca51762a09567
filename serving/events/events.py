"""`POST /v1/events`: what happened, taken durably, item by item, and heard before it is acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

import msgspec

from features.columns.rows import StoreUnavailable
from features.common import timestamps
from features.common.moments import Micros
from features.common.types import Event
from features.events.log_errors import PUBLIC, LogUnavailable
from features.events.rows import CONFLICT, FORGOTTEN, Item, Result, dead_item, event_item
from features.events.semantics import POISON, InvalidEvent, time_of
from features.events.writer import EventWriter, LogBusy
from serving.events.body import EVENTS, ITEM_CODES, Bad, EventsBeacon, EventsBody, read_events
from serving.events.delivery import EventContext, EventDelivery
from serving.http import problems
from serving.http.auth import Role
from serving.http.routing import EVENTS_BODY_BYTES_MAX, JSON_HEADERS, Answer, Call, Route
from serving.runtime.cooperative import turn
from serving.runtime.metrics import Metrics

ITEMS_A_TURN = 8
"""Items that are looked at before others have their turn on the loop."""

REASONS = tuple(dict.fromkeys((*POISON, *ITEM_CODES, "too-large", CONFLICT, FORGOTTEN)))
"""Why an item becomes a dead letter: a closed set."""
CONTACTS_UNAVAILABLE = "contacts_unavailable"
STAGES = ("decode", "store", "hear")

_KNOWN_LATE = {
    CONFLICT: ("/event_id", "an id of its own: another event has it"),
    FORGOTTEN: ("", "an event after its customer was forgotten"),
    "too-large": ("", "an event of at most 16 KiB"),
}

_encode = msgspec.json.Encoder().encode


class RefusedEvent(msgspec.Struct, frozen=True):
    """An item that was not taken: it is a dead letter, and its neighbours are none the worse."""

    index: int
    code: str
    pointer: str
    expected: str


class EventsAnswer(msgspec.Struct, frozen=True):
    """What became of a batch; accepted = stored + duplicates + dead."""

    accepted: int
    stored: int
    duplicates: int
    dead: int
    refused: tuple[RefusedEvent, ...] = ()
    degraded: tuple[str, ...] = ()
    """`contacts_unavailable`: all is kept, and the next decisions may not know of it yet."""


class Events:
    """Handlers of events for one worker. Declares its metrics: make it before they are attached."""

    def __init__(
        self,
        understanding: Callable[[], EventContext],
        hearing: EventDelivery,
        writer: EventWriter,
        metrics: Metrics,
        clock: Callable[[], Micros] = timestamps.now,
    ) -> None:
        self._understanding, self._hearing, self._writer, self._clock = understanding, hearing, writer, clock
        self._events = metrics.counter(
            "opportune_events_total", "Accepted events.", result=("stored", "duplicate", "dead")
        )
        self._dead = metrics.counter(
            "opportune_dead_letters_total", "Accepted items that are no events.", reason=REASONS
        )
        self._refused = metrics.counter(
            "opportune_event_log_unavailable_total", "Batches that the log did not take.", reason=(*PUBLIC, "busy")
        )
        self._late = metrics.counter(
            "opportune_events_unheard_total", "Acknowledged batches that the ledger had not heard."
        )

    async def post(self, body: bytes, call: Call) -> Answer:
        """`POST /v1/events`."""
        begin = perf_counter_ns()
        given = await read_events(body, beacon=call.beacon)
        items, poison = await self._items(given)
        decoded = perf_counter_ns()
        token = self._hearing.watermark.begin()
        try:
            results = await self._append(items)
        except BaseException:
            self._hearing.watermark.missed(token)  # it may be in the log all the same
            raise
        stored = perf_counter_ns()
        degraded = await self._hear(token, given, results)
        answer = self._answer(results, poison, degraded)
        done = perf_counter_ns()
        return 202, JSON_HEADERS, _encode(answer), (decoded - begin, stored - decoded, done - stored)

    async def _items(self, given: list[Event | Bad]) -> tuple[list[Item], dict[int, InvalidEvent]]:
        """Rows for the log, and why some are dead letters, by position."""
        happenings, now = self._understanding().happenings, self._clock()
        items: list[Item] = []
        poison: dict[int, InvalidEvent] = {}
        for at, one in enumerate(given):
            if at and at % ITEMS_A_TURN == 0:
                await turn()
            if isinstance(one, Bad):
                poison[at] = one.poison
                items.append(dead_item(one.poison.code, one.unit, one.body))
            elif (found := happenings.poison(one, now)) is not None:
                poison[at] = found
                items.append(dead_item(found.code, one.unit, _encode(one)))
            else:
                items.append(event_item(one, time_of(one)))
        return items, poison

    async def _append(self, items: list[Item]) -> list[Result]:
        try:
            return await self._writer.append(items)
        except LogBusy:
            self._refused.add("busy")
            raise problems.Overloaded("Too many events wait for the disk. Wait as long as Retry-After says.") from None
        except LogUnavailable as lack:
            self._refused.add(lack.reason)
            text = f"{lack.public[0].upper()}{lack.public[1:]}. {problems.EventsUnavailable.text}"
            raise problems.EventsUnavailable(text) from None

    async def _hear(self, token: int, given: list[Event | Bad], results: list[Result]) -> tuple[str, ...]:
        watermark, news = self._hearing.watermark, []
        for one, result in zip(given, results, strict=True):
            if result.outcome == "stored":
                watermark.stored(result.seq)
            if result.outcome != "dead" and not result.heard and isinstance(one, Event):
                news.append((one, result.received))
        try:
            await self._hearing.tell(news)
        except StoreUnavailable:
            watermark.missed(token)
            self._late.add()
            return (CONTACTS_UNAVAILABLE,)
        except BaseException:
            watermark.missed(token)
            raise
        watermark.done(token)
        return ()

    def _answer(
        self, results: list[Result], poison: dict[int, InvalidEvent], degraded: tuple[str, ...]
    ) -> EventsAnswer:
        tally = {"stored": 0, "duplicate": 0, "dead": 0}
        refused = []
        for at, result in enumerate(results):
            tally[result.outcome] += 1
            if result.outcome == "dead":
                self._dead.add(result.reason)
                found = poison.get(at) or InvalidEvent(result.reason, *_KNOWN_LATE[result.reason])
                refused.append(RefusedEvent(at, found.code, f"/{EVENTS}/{at}{found.pointer}", found.expected))
        for outcome, count in tally.items():
            self._events.add(outcome, count=count)
        return EventsAnswer(len(results), tally["stored"], tally["duplicate"], tally["dead"], tuple(refused), degraded)

    def routes(self) -> tuple[Route, ...]:
        """Return the route table's part that is about events."""
        roles: frozenset[Role] = frozenset(("events", "admin"))
        return (
            Route(
                method="POST",
                path="/v1/events",
                name="events",
                summary="What happened: impressions, outcomes, events of streams, who somebody is, what they allow.",
                roles=roles,
                handler=self.post,
                body_bytes_max=EVENTS_BODY_BYTES_MAX,
                beacon=EventsBeacon,
                request=EventsBody,
                response=EventsAnswer,
                stages=STAGES,
                statuses={202: "Kept, durably; `refused` says what was not."},
                problems=(problems.EventsUnavailable, problems.BatchSize),
            ),
        )
