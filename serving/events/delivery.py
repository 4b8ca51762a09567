"""How the ledger hears of events: after the log has them, before they are acknowledged, and again where that may not
have come about.

What is in the log is never unheard for good. A worker hears its own events again when the ledger did not answer, and
those of workers that died; the mark in the log follows what the ledger has made durable. Hearing is idempotent. Budgets
are confirmed for what was new: at most once, so that a worker that dies between the two leaves its last shows
unconfirmed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from features.columns.rows import StoreUnavailable
from features.common import timestamps
from features.common.moments import Micros, Seconds, in_seconds
from features.common.timestamps import MICROSECONDS, duration_seconds
from features.common.types import Event
from features.contact_history import history
from features.contact_history.history import OUTCOME, entries, word_of
from features.contact_history.takes import ContactEvent
from features.events import consumers
from features.events.log import read
from features.events.log_errors import LogUnavailable
from features.events.rows import Logged
from features.events.semantics import EventSchema, decided_at
from features.events.writer import EventWriter
from features.ledger.ledger import Ledger
from features.ledger.recent import Heard
from features.workspace.workspace import Workspace
from serving.events.watermark import Watermark
from serving.hub.contact_policy import ACCEPTANCES, Contacting
from serving.runtime.cooperative import turn
from serving.runtime.metrics import Metrics
from serving.state.snapshot import Snapshot

logger = logging.getLogger("opportune.hearing")

UNITS_MAX = 8
"""Of one call of the ledger: the embedded one answers on the loop's own thread, and decisions wait meanwhile."""
AGAIN_SECONDS = 1.0
"""Between two looks at what has to be heard again, and two marks."""
READ_ROWS_MAX = 500


@dataclass(frozen=True)
class EventContext:
    """What events mean in one state of the workspace."""

    happenings: EventSchema
    acceptances: frozenset[str]
    """Types of outcomes that mean that an offer was taken up."""
    late: int
    """Microseconds after which an event is too late."""
    contacting: Contacting | None = None
    """None while nothing serves: then events are kept, and heard later."""
    positions: dict[str, int] | None = None
    """Of offers in the catalogue."""

    @staticmethod
    def of(workspace: Workspace, loaded: Snapshot | None = None) -> EventContext:
        """Some microseconds an offer: make it where a state is made, not on the loop."""
        acceptances = frozenset((workspace.model.label.outcome, *ACCEPTANCES))
        late = duration_seconds(workspace.settings.events.late) * MICROSECONDS
        if loaded is None:
            return EventContext(EventSchema(workspace, None), acceptances, late)
        catalogue = loaded.catalogue
        return EventContext(
            EventSchema(workspace, catalogue.offers), acceptances, late, loaded.hub.contacting, catalogue.index
        )


class Understandings:
    """The understanding of each state; one that was prepared aside costs the loop nothing."""

    def __init__(self, workspace: Workspace) -> None:
        self._before = EventContext.of(workspace)
        self._prepared: tuple[Snapshot | None, EventContext] = (None, self._before)
        self._current: tuple[Snapshot | None, EventContext] = (None, self._before)

    def prepare(self, loaded: Snapshot) -> None:
        """To be called where a state is made, from any thread."""
        self._prepared = (loaded, EventContext.of(loaded.workspace, loaded))

    def of(self, loaded: Snapshot | None) -> EventContext:
        """Return the context of the state that serves; None while nothing serves."""
        if loaded is None:
            return self._before
        if self._current[0] is not loaded:
            prepared = self._prepared
            self._current = prepared if prepared[0] is loaded else (loaded, EventContext.of(loaded.workspace, loaded))
        return self._current[1]


class EventDelivery:
    """Tells the ledger, for one worker.

    Args:
        understanding: the state that serves now.
        ledger: asked for when it is needed first.
    """

    def __init__(
        self,
        understanding: Callable[[], EventContext],
        ledger: Callable[[], Ledger],
        writer: EventWriter,
        metrics: Metrics,
        clock: Callable[[], Micros] = timestamps.now,
    ) -> None:
        self._understanding, self._ledger, self.writer, self._clock = understanding, ledger, writer, clock
        self.watermark = Watermark()
        self._synced, self._lacks = 0, ""
        self._seconds = metrics.histogram(
            "opportune_heard_seconds", "From the event log to the ledger, the oldest event of a batch."
        )
        self._behind = metrics.gauge(
            "opportune_events_behind", "Workers with events that the ledger has still to hear."
        )
        self._again = metrics.counter(
            "opportune_events_heard_again_total", "Events that were heard from the log, not from their request."
        )

    async def tell(self, events: Sequence[tuple[Event, int]]) -> None:
        """Hears events with the moments at which the log took them.

        Raises:
            StoreUnavailable: some of them may not have been heard.
        """
        now = self._understanding()
        if now.contacting is None:
            raise StoreUnavailable("nothing serves yet")
        for part in _slices(events):
            await turn()
            await self._tell(now, now.contacting, part)
        if events:
            oldest = min(received for _, received in events)
            self._seconds.observe(max(0, self._clock() - oldest) * 1_000, self._seconds.slot())

    async def _tell(self, now: EventContext, contacting: Contacting, events: Sequence[tuple[Event, int]]) -> None:
        heard = [(event, received, now.happenings.heard(event, received)) for event, received in events]
        heard = [one for one in heard if one[2] != Heard(one[2].unit)]  # some say nothing that the ledger keeps
        if not heard:
            return
        ledger = self._ledger()
        news = await ledger.hear([one for *_, one in heard], contacting.policy, in_seconds(self._clock()))
        for (event, received, one), new in zip(heard, news, strict=True):
            if new and one.contact is not None and now.positions is not None:
                await self._confirm(ledger, now, contacting, event, received, one.contact)

    async def _confirm(
        self,
        ledger: Ledger,
        now: EventContext,
        contacting: Contacting,
        event: Event,
        received: int,
        contact: ContactEvent,
    ) -> None:
        """Count for good a show that was seen, or an offer that was taken up."""
        position = (now.positions or {}).get(event.offer_id or "")
        budgets = () if position is None else contacting.budgets(position)
        if not budgets:
            return
        seen = contact.kind == history.IMPRESSION
        if not seen and event.type not in now.acceptances:
            return
        counted = [budget.offer for budget in budgets if (budget.offer == contact.offer) == seen]
        if not counted or not (seen or await self._is_first(ledger, now, event, contact)):
            return
        moment = decided_at(event.decision_id or "", received, now.late)
        await ledger.confirm(
            counted, contacting.moment(Seconds(contact.time) if moment is None else in_seconds(moment))
        )

    async def _is_first(self, ledger: Ledger, now: EventContext, event: Event, contact: ContactEvent) -> bool:
        """Return whether it is the first that says so: an acceptance and then a conversion take one piece of a
        stock.
        """
        if not contact.decision:
            return True  # nothing tells that another acceptance is of the same piece
        known = ledger.look_now(event.unit) or await ledger.look(event.unit)
        words = {word_of(kind) for kind in now.acceptances}
        for entry in entries(known.contacts):
            same = int(entry["offer"]) == contact.offer and int(entry["decision"]) == contact.decision
            if same and int(entry["kind"]) == OUTCOME and int(entry["what"]) in words:
                return int(entry["what"]) == contact.what and float(entry["time"]) == contact.time
        return True

    async def run(self) -> None:
        """Hears again what has to be, and writes the mark, until cancelled. A worker runs it from its start."""
        while True:
            await self.look()
            await asyncio.sleep(AGAIN_SECONDS)

    async def look(self) -> None:
        """Once."""
        try:
            missed = self.watermark.take_missed()
            if missed is not None:
                token, floor = missed
                try:
                    await self._again_from(self.writer.worker, floor)
                except BaseException:
                    self.watermark.missed(token)
                    raise
                self.watermark.done(token)
            if self._understanding().contacting is not None:
                await self._adopt()
            place = self.watermark.place
            if place > self._synced:
                await asyncio.to_thread(self._ledger().sync)
                self.writer.mark(place)
                self._synced = place
        except (StoreUnavailable, LogUnavailable, OSError) as lacks:
            if str(lacks) != self._lacks:
                self._lacks = str(lacks)
                logger.warning("some events are in the log and have still to be heard: %s", lacks)
        else:
            if self._lacks:
                self._lacks = ""
                logger.info("all events are heard")
        self._behind.set(int(self.watermark.behind))

    async def _adopt(self) -> None:
        """Hear what workers left that died."""
        found = await asyncio.to_thread(lambda: list(consumers.dead(self.writer.folder)))
        try:
            for alive in found:
                mark = await asyncio.to_thread(consumers.mark_of, self.writer.folder, alive.worker)
                if mark is not None:
                    await self._again_from(alive.worker, mark)
                    await asyncio.to_thread(self._ledger().sync)
                await self.writer.bury(alive)
        finally:
            for alive in found:
                alive.release()

    async def _again_from(self, worker: int, after: int) -> None:
        while found := await asyncio.to_thread(self._read, worker, after):
            events = [(event, row.received) for row in found if (event := _event(row)) is not None]
            await self.tell(events)
            self._again.add(count=len(events))
            after = found[-1].seq

    def _read(self, worker: int, after: int) -> list[Logged]:
        return read(self.writer.folder, after, worker=worker, rows=READ_ROWS_MAX)


def _event(row: Logged) -> Event | None:
    """Return the event of a row; None where the disk has damaged it."""
    try:
        if row.intact:
            return row.event
    except msgspec.DecodeError:
        pass
    logger.error("event %d of the log is damaged and passed over", row.seq)
    return None


def _slices(events: Sequence[tuple[Event, int]]) -> Iterator[list[tuple[Event, int]]]:
    """Parts with few units each, in order."""
    part: list[tuple[Event, int]] = []
    units: set[str] = set()
    for one in events:
        unit = one[0].unit
        if (unit not in units and len(units) >= UNITS_MAX) or len(part) >= 4 * UNITS_MAX:
            yield part
            part, units = [], set()
        units.add(unit)
        part.append(one)
    if part:
        yield part
