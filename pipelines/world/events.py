"""What happens in a run, in the order of its time, as the events that frontends and other systems would send."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from features.common.timestamps import from_microseconds
from features.common.types import IDENTIFY, IMPRESSION, Decision, Event
from pipelines.world.customers import NEVER
from pipelines.world.history import draw_purchases
from pipelines.world.outcomes import AT_ONCE, Outcomes
from pipelines.world.settings import CATEGORIES, CHANNELS, NOW, PLACEMENT
from pipelines.world.visits import Visits
from pipelines.world.workspace import ACCEPTANCE, CLICK, DISMISSAL
from pipelines.world.world import World

PURCHASES, COMPLAINTS = "purchases", "complaints"
COMPLAINT_TOPIC = "service"


class Happening(NamedTuple):
    """Something that is to be told at a moment of the world; `number` makes the order of equal moments plain."""

    at: int
    number: int
    kind: str
    who: int
    category: str = ""
    """Of a purchase."""
    value: float | None = None
    """What an outcome is worth; the amount of a purchase."""
    decision_id: str | None = None
    offer_id: str | None = None
    channel: str | None = None


class FutureEvents:
    """What is still to happen: purchases, complaints and log-ins of the run from the start, outcomes as decisions bring
    them.
    """

    def __init__(self, world: World, visits: Visits, name: str) -> None:
        self._world, self._visits, self._name = world, visits, name
        self._count = 0
        people, bought = world.customers, draw_purchases(world).between(NOW, world.settings.end)
        self._waiting: list[Happening] = []
        for who, at, category, amount in zip(
            bought.who.tolist(), bought.at.tolist(), bought.category, bought.amount.tolist(), strict=True
        ):
            self._add(at, PURCHASES, who, category=CATEGORIES[category], value=amount)
        for who in np.flatnonzero((people.complaint >= NOW) & (people.complaint != NEVER)).tolist():
            self._add(int(people.complaint[who]), COMPLAINTS, who)
        for who in np.flatnonzero(people.login > 0).tolist():
            self._add(int(people.login[who]), IDENTIFY, who)

    def __len__(self) -> int:
        return len(self._waiting)

    def _add(self, at: int, kind: str, who: int, **more: object) -> None:
        self._count += 1
        heapq.heappush(self._waiting, Happening(at, self._count, kind, who, **more))  # type: ignore[arg-type]

    def answered(self, number: int, decision: Decision, came: Outcomes) -> None:
        """Take up what will come of the decision of one visit; `came` is of this visit alone."""
        at, who = int(self._visits.at[number]), int(self._visits.who[number])
        channel = CHANNELS[self._visits.channel[number]]
        for rank, offer in enumerate(decision.offers):
            tied = {"decision_id": decision.decision_id, "offer_id": offer.offer_id, "channel": channel}
            if not came.seen[0, rank]:
                continue
            self._add(at + AT_ONCE, IMPRESSION, who, **tied)
            if came.clicked[0, rank]:
                self._add(at + 2 * AT_ONCE, CLICK, who, **tied)
            if came.dismissed[0, rank]:
                self._add(at + 2 * AT_ONCE, DISMISSAL, who, **tied)
            if came.accepted[0, rank]:
                value = float(self._world.offers.value[self._world.offers_at[offer.offer_id]])
                self._add(at + int(came.delay[0, rank]), ACCEPTANCE, who, value=value, **tied)

    def due(self, until: int) -> Iterator[Happening]:
        """Return what happens up to a moment, each once, in order."""
        while self._waiting and self._waiting[0].at <= until:
            yield heapq.heappop(self._waiting)

    def event(self, happening: Happening, clock: int) -> Event:
        """Return the event that tells of it.

        Args:
            clock: what the decider's clock says, microseconds since 1970.
        """
        people, who = self._world.customers, happening.who
        anonymous = happening.at < people.login[who]
        both = happening.kind == IDENTIFY
        fields: dict[str, float | str | None] = {}
        if happening.kind == PURCHASES:
            fields = {"amount": happening.value, "category": happening.category}
        elif happening.kind == COMPLAINTS:
            fields = {"topic": COMPLAINT_TOPIC}
        return Event(
            event_id=f"{self._name}-{happening.number:x}",
            type=happening.kind,
            occurred_at=from_microseconds(clock),
            customer_id="" if anonymous else people.ids[who],
            anonymous_id=people.anonymous_id(who) if anonymous or both else None,
            decision_id=happening.decision_id,
            offer_id=happening.offer_id,
            placement=None if happening.offer_id is None else PLACEMENT,
            channel=happening.channel,
            value=None if fields else happening.value,
            fields=fields,
        )
