"""Lives of a workspace for tests: decisions taken and journalled, events logged and heard, in process, at moments of
their own.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import warnings
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import yaml

from features.columns.rows import KeyedRow, OnlineRow
from features.common.timestamps import MICROSECONDS, from_microseconds
from features.common.timestamps import now as clock
from features.common.types import Decision, DecisionRequest, Event
from features.events.log import EventLog, event_folder
from features.events.rows import event_item
from features.events.semantics import EventSchema, time_of
from features.events.writer import EventWriter
from features.ledger.ledger import Ledger, ledger_of
from features.lmdb_store.engine import EmbeddedEngine
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.materialize import steps
from serving.decision.effects import Effect, EffectResult, GiveBack, Reserve
from serving.events.delivery import EventContext, EventDelivery
from serving.hub.contact_policy import Contacting
from serving.journal.journal import Journal
from serving.reload.reloader import Reloader
from serving.runtime.metrics import Metrics
from serving.state.snapshot import Snapshot
from tests.serving.decisions import decide

POLICIES: dict[str, Any] = {
    "limits": {
        "each": {"max": 3, "window": "1d", "per": "offer", "count": "decisions"},
        "seen": {"max": 6, "window": "2d", "per": "group", "count": "impressions", "channel": "each"},
        "all": {"max": 40, "window": "3d", "count": "decisions"},
    },
    "pauses": {"no": {"outcome": "dismissal", "times": 1, "within": "1d", "pause": "2d", "per": "offer"}},
    "hold": "10m",
}
CUSTOMERS = [f"436{600_000 + number}" for number in range(24)]
FORGOTTEN = CUSTOMERS[3]
UNITS = [*CUSTOMERS, *(f"~a{number}" for number in range(8))]
DAYS = 4


def limited(folder: Path, policies: dict[str, Any] = POLICIES, daily: int = 30, stock: int = 25) -> Workspace:
    """The workspace under policies, with offers that have budgets."""
    offers = yaml.safe_load((folder / "offers.yaml").read_text())
    by_hand = [offer for offer in offers["offers"] if offer["offer_id"] not in ("rare", "few")]
    rare = {
        "offer_id": "rare",
        "value": 1e6,
        "attributes": {"topic": "voice"},
        "budget": {"daily": daily, "lifetime": 7 * daily},
    }
    few = {"offer_id": "few", "value": 1e5, "attributes": {"topic": "data"}, "budget": {"stock": stock}}
    (folder / "offers.yaml").write_text(yaml.safe_dump(offers | {"group": "topic", "offers": [*by_hand, rare, few]}))
    (folder / "policies.yaml").write_text(yaml.safe_dump(policies))
    workspace = load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps.import_tables(workspace, clock())
    return workspace


class Life:
    """A server's work in process, at moments of its own: decisions are taken and journalled, events logged and
    heard.
    """

    def __init__(self, workspace: Workspace, seed: int, days: float = DAYS) -> None:
        self.workspace, self.random = workspace, random.Random(seed)
        self.days, self.now = days, clock() - int(days * 86_400 * MICROSECONDS)
        self.count = itertools.count()
        desk = Reloader(workspace)
        desk.load()
        assert desk.loaded is not None, desk.refusal
        self.loaded: Snapshot = desk.loaded
        desk.close()
        self.contacting: Contacting = self.loaded.hub.contacting
        self.ledger: Ledger = ledger_of(workspace)
        self.journal = Journal.open(workspace.data / "journal")
        self.log = EventLog(event_folder(workspace.data), clock=lambda: self.now)
        index = self.loaded.catalogue.index
        sense = EventContext(
            EventSchema(workspace, self.loaded.catalogue.offers),
            frozenset(("accepted", "acceptance", "conversion")),
            30 * 86_400 * MICROSECONDS,
            self.contacting,
            index,
        )
        self.hearing = EventDelivery(
            lambda: sense, lambda: self.ledger, cast(EventWriter, None), Metrics(), lambda: self.now
        )
        self.engine = EmbeddedEngine(workspace.online, workspace.views)
        self.shown: list[tuple[str, str, str]] = []
        self.runner = asyncio.Runner()

    def run(self, count: int) -> None:
        """Something happens, so many times."""
        step = int(self.days * 86_400 * MICROSECONDS) // (count + 100)
        for _ in range(count):
            self.now += self.random.randrange(1, 2 * step)
            self.now = min(self.now, clock() - 1)
            self.decide() if self.random.random() < 0.4 else self.tell(self.happening())

    def decide(self, unit: str = "", row: OnlineRow | None = None, **context: Any) -> Decision:
        """One decision for somebody; what is not given is drawn."""
        unit = unit or self.random.choice(UNITS)
        known = self.ledger.look_now(unit)
        assert known is not None
        channel = self.random.choice(["app", "web", "shop"])
        anonymous = unit.startswith("~")
        request = DecisionRequest(
            "" if anonymous else unit,
            "home",
            self.random.randrange(1, 6),
            {"channel": channel} | context,
            anonymous_id=unit[1:] if anonymous else None,
        )
        if known.unit == FORGOTTEN:  # what counts for everybody must not depend on whom nobody remembers
            request = msgspec.structs.replace(request, exclude=["rare", "few"])
        name = f"{self.now:x}-life-{next(self.count):x}"
        row = self.row(known.unit) if row is None else row
        decision = decide(
            request,
            self.loaded,
            row,
            self.now,
            decision_id=name,
            record=self.journal.append,
            contacts=known.contacts,
            take=self._take,
            unit=known.unit,
        )
        self.shown += [(name, known.unit, offer.offer_id) for offer in decision.offers]
        return decision

    def row(self, unit: str) -> OnlineRow:
        """What the online store knows of a unit, with the words of the state that decides."""
        row, words = self.engine.read_now(unit), self.loaded.layout.words
        numbers = row.numbers.copy()
        for view in self.engine.plan.views:
            for scalar in view.scalars:
                slot = self.engine.plan.scalars[f"{view.name}.{scalar.name}"]
                if scalar.dtype == "category" and numbers[slot] == numbers[slot]:
                    numbers[slot] = words.id(self.engine.words.texts[int(numbers[slot])])
        families = [
            None
            if one is None
            else KeyedRow(np.array([words.id(self.engine.words.texts[key]) for key in one.keys], np.uint32), one.values)
            for one in row.families
        ]
        return OnlineRow(numbers, families, row.event_times)

    def _take(self, asked: Effect) -> EffectResult:
        if isinstance(asked, Reserve):
            return self.ledger.take_budgets_now(asked.budgets, asked.moment)
        if isinstance(asked, GiveBack):
            self.runner.run(self.ledger.give_back(asked.offers, asked.moment))
            return None
        return self.ledger.take_now(asked)

    def happening(self) -> Event:
        """An event of some kind, late or not, of what was shown or of nothing."""
        kind = self.random.choices(
            ["impression", "accepted", "dismissal", "click", "calls", "consent", "identify"], [8, 2, 2, 1, 5, 1, 0.4]
        )[0]
        late = self.random.choice([0, 0, 0, 3_600, 90_000]) * MICROSECONDS
        name, unit, offer = self.random.choice(self.shown[-200:] or [("", UNITS[0], "offer-01")])
        if not name or kind in ("calls", "consent"):
            unit = self.random.choice(UNITS)
        who: dict[str, Any] = {"anonymous_id": unit[1:]} if unit.startswith("~") else {"customer_id": unit}
        if kind == "identify":
            who = {"customer_id": self.random.choice(CUSTOMERS), "anonymous_id": f"a{self.random.randrange(8)}"}
        elif kind == "calls":
            who["fields"] = {
                "minutes": self.random.choice([1.5, 12.25, 0.1]),
                "topic": self.random.choice(["data", "voice"]),
            }
        elif kind == "consent":
            who["purposes"] = {"personalization": self.random.random() < 0.5}
        else:
            who |= {"offer_id": offer} | ({"decision_id": name} if self.random.random() < 0.9 and name else {})
            who |= {"channel": "app", "placement": "home"} if kind == "impression" else {}
        return Event(f"e{next(self.count)}", kind, from_microseconds(self.now - late), **who)

    def tell(self, event: Event) -> None:
        """As a server does: the log first, then the ledger; some of it twice."""
        for _ in range(self.random.choice([1, 1, 1, 2])):
            (result,) = self.log.append([event_item(event, time_of(event))])
            assert result.outcome != "dead", result
            self.runner.run(self.hearing.tell([(event, result.received)]))

    def close(self) -> None:
        self.engine.close()
        self.journal.close()
        self.ledger.close()
        self.log.close()
        self.runner.close()
