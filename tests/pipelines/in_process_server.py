"""A server's work in process for tests of experiments: decisions, flags and log-ins through the same routes, the
journal told of all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import yaml

from features.common.timestamps import from_microseconds
from features.common.timestamps import now as clock
from features.common.types import Decision, DecisionRequest, Event
from features.events.log import EventLog, event_folder
from features.events.rows import event_item
from features.events.semantics import EventSchema, time_of
from features.events.writer import EventWriter
from features.validation.load import load
from serving.api.decisions import Decisions
from serving.api.flags import Flags
from serving.api.preview import Enquiry
from serving.events.delivery import EventContext, EventDelivery
from serving.http.routing import Call
from serving.journal.journal import Journal
from serving.reload.reloader import Reloader
from serving.runtime.metrics import Metrics


class Counter:
    """One worker's routes without HTTP, on the files as they are when it is made; several may share a workspace.

    Args:
        experiments: the content of `experiments.yaml`.
        now: the moment of all that it does, microseconds since 1970; the clock's when absent.
    """

    def __init__(self, folder: Path, experiments: dict[str, Any], now: Callable[[], int] = clock) -> None:
        (folder / "experiments.yaml").write_text(yaml.safe_dump(experiments, sort_keys=False))
        self.workspace, self.now = load(folder, sources=False), now
        self.desk = Reloader(self.workspace, clock=now)
        self.desk.load()
        assert self.desk.loaded is not None, self.desk.refusal
        self.loaded = self.desk.loaded
        self.journal = Journal.open(self.workspace.data / "journal")
        self.desk.on_build(self.loaded)
        self.desk.stores.effects.on_settled = self.journal.append
        self.decisions = Decisions(self.desk, self.workspace, Metrics(), self.journal)
        self.flags = Flags(Enquiry(self.desk), self.decisions)
        self.log = EventLog(event_folder(self.workspace.data), clock=now)
        contacting, offers = self.loaded.hub.contacting, self.loaded.catalogue
        sense = EventContext(
            EventSchema(self.workspace, offers.offers), frozenset(("accepted",)), 1 << 60, contacting, offers.index
        )
        self.hearing = EventDelivery(
            lambda: sense, lambda: self.desk.stores.ledger, cast(EventWriter, None), Metrics(), now
        )

    async def decide(self, **who: Any) -> Decision:
        """A decision for the placement `home`."""
        return await self.decisions.answer(msgspec.convert({"placement": "home", **who}, DecisionRequest))

    async def flag(self, key: str, targeting: str, **more: Any) -> None:
        """A single evaluation of OFREP."""
        call = Call(b"", None, {}, {})
        call.parameters = {"key": key}
        status, *_ = await self.flags.one(msgspec.json.encode({"context": {"targetingKey": targeting, **more}}), call)
        assert status == 200

    async def tell(self, *events: Event) -> None:
        """As a server does: the log first, then the ledger."""
        results = self.log.append([event_item(event, time_of(event)) for event in events])
        assert {result.outcome for result in results} <= {"stored", "duplicate"}, results
        await self.hearing.tell([(event, result.received) for event, result in zip(events, results, strict=True)])

    async def identify(self, anonymous_id: str, customer_id: str) -> None:
        """Somebody logs in."""
        moment = from_microseconds(self.now())
        await self.tell(
            Event(f"{anonymous_id}-is-{customer_id}-{self.now():x}", "identify", moment, customer_id, anonymous_id)
        )

    def close(self) -> None:
        """Leave everything as a server that ends does."""
        self.log.close()
        self.desk.close()
        self.journal.close()
