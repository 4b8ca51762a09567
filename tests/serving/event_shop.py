"""What takes the events of a shop, with a ledger that can be deaf."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from features.columns.catalogue import Catalogue
from features.columns.rows import StoreUnavailable
from features.common.timestamps import rfc3339
from features.common.types import Budget as OfferBudget
from features.common.types import Offer
from features.config.policies import PoliciesFile
from features.contact_history.limits import ContactPolicy
from features.events.semantics import EventSchema
from features.events.sqlite_file import LogLimits
from features.events.writer import EventWriter
from features.ledger.lmdb_ledger import LmdbLedger
from features.ledger.recent import Heard
from features.workspace.workspace import Workspace
from serving.events.delivery import EventContext, EventDelivery
from serving.events.events import Events
from serving.http.routing import Call
from serving.hub.contact_policy import Contacting
from serving.runtime.metrics import Metrics

NOW = 1_795_348_800_000_000
OFFERS = [
    Offer("o1", group="loans", attributes={"topic": "roaming"}),
    Offer("o2", budget=OfferBudget(lifetime=5, stock=4)),
]


class Deaf:
    """A ledger that can be told not to answer, and remembers how many it was told of at once."""

    def __init__(self, ledger: LmdbLedger) -> None:
        self.ledger, self.deaf, self.calls, self.synced = ledger, False, [0], 0

    async def hear(self, heard: Sequence[Heard], policy: ContactPolicy, now: float) -> list[bool]:
        if self.deaf:
            raise StoreUnavailable("deaf")
        self.calls.append(len({one.unit for one in heard}))
        return await self.ledger.hear(heard, policy, now)

    def sync(self) -> None:
        self.synced += 1
        self.ledger.sync()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ledger, name)


class Shop:
    """A worker's part that takes events, on a folder; another on the same folder is another worker."""

    def __init__(self, folder: Path, workspace: Workspace, limits: LogLimits | None = None) -> None:
        contacting = Contacting(PoliciesFile(), Catalogue(OFFERS), (), ("accepted", "acceptance", "conversion"), "UTC")
        positions = {offer.offer_id: at for at, offer in enumerate(OFFERS)}
        happenings = EventSchema(workspace, OFFERS)
        late = 30 * 86_400 * 10**6
        self.understanding = EventContext(
            happenings, frozenset(("accepted", "acceptance", "conversion")), late, contacting, positions
        )
        self.ledger, self.metrics = Deaf(LmdbLedger(folder / "ledger")), Metrics()
        self.folder = folder / "events"
        self.writer = EventWriter(self.folder, limits or LogLimits(free_bytes_min=0), clock=lambda: NOW)
        ledger: Any = self.ledger
        self.hearing = EventDelivery(
            lambda: self.understanding, lambda: ledger, self.writer, self.metrics, clock=lambda: NOW
        )
        self.events = Events(lambda: self.understanding, self.hearing, self.writer, self.metrics, clock=lambda: NOW)

    async def post(self, *items: Any) -> dict[str, Any]:
        status, _, answer, stages = await self.events.post(
            json.dumps({"events": items}).encode(), Call(b"r", None, {}, {})
        )
        assert status == 202
        assert len(stages) == 3
        found: dict[str, Any] = json.loads(answer)
        return found

    def recent(self, unit: str = "c1") -> set[int]:
        return {event.key for event in self.ledger.look_now(unit).recent.events}

    def close(self) -> None:
        self.writer.close()
        self.ledger.close()


def row(event_id: str = "e1", kind: str = "calls", **fields: Any) -> dict[str, Any]:
    given = {"event_id": event_id, "type": kind, "occurred_at": rfc3339(NOW - 5_000_000), "customer_id": "c1", **fields}
    return {name: value for name, value in given.items() if value is not None}


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]
