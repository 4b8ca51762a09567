"""Drives whoever decides through the days of a simulated world: visits ask, the world answers, and what happens is told
in its time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from features.common.types import EVENTS_MAX, Decision, DecisionRequest, Event
from pipelines.world.events import FutureEvents, Happening
from pipelines.world.outcomes import Outcomes, follow
from pipelines.world.port import DeciderRefused, Port, Told
from pipelines.world.settings import DAY, LIVE, NOW, PLACEMENT, SLATE_OFFERS, WINDOW_DAYS, Floats, Integers
from pipelines.world.visits import Visits, draw_visits
from pipelines.world.world import World

TOLD_EVERY = 100
"""Progress is told after so many decisions."""


@dataclass(frozen=True)
class Driven:
    """What was decided in a run, and what came of it; one entry a visit.

    Attributes:
        slates: positions of offers as shown, -1 where fewer were; shape (visits, SLATE_OFFERS).
        propensities: as the decisions say, NaN where there is no offer; the same shape.
        considered: how many offers the decider says were eligible.
        clock: what the decider's clock said, in the world's time: what is valid goes by it. In process it is the
            visit's moment.
        degraded: flags of decisions, with how many had them.
        events: how many happened, by type.
        told: what became of them; None where nobody counts.
    """

    visits: Visits
    slates: Integers
    propensities: Floats
    considered: Integers
    clock: Integers
    outcomes: Outcomes
    degraded: dict[str, int]
    events: dict[str, int]
    told: Told | None


def live_visits(world: World, decisions: int) -> Visits:
    """Return the visits of the run, of which each asks for one decision."""
    return draw_visits(world, LIVE, decisions, NOW, world.settings.live_days)


def drive(
    world: World,
    visits: Visits,
    port: Port,
    run: str,
    shift: int = 0,
    tell: Callable[[str, float], None] = lambda *_: None,
) -> Driven:
    """Ask for a decision at each visit, and tell what happened, both in the order of the world's time.

    Args:
        run: what the ids of events begin with: another for each run against the same service.
        shift: microseconds that the workspace's time is ahead of the world's.
        tell: told the part of the visits that is done, 0 to 1.

    Raises:
        DeciderRefused: the decider does not answer, or decides about other offers.
    """
    script, count = FutureEvents(world, visits, run), len(visits)
    slates, propensities = np.full((count, SLATE_OFFERS), -1), np.full((count, SLATE_OFFERS), np.nan)
    considered, clock = np.zeros(count, np.int64), np.zeros(count, np.int64)
    degraded: Counter[str] = Counter()
    events: Counter[str] = Counter()
    for number in range(count):
        at = int(visits.at[number])
        _tell(port, script, at, events)
        clock[number] = port.turn(at) - shift
        decision = port.decide(request_of(world, visits, number))
        shown = _positions(world, decision)
        slates[number, : len(shown)] = shown
        propensities[number, : len(shown)] = [offer.propensity for offer in decision.offers]
        considered[number] = decision.considered
        degraded.update(decision.degraded)
        rows = slice(number, number + 1)
        script.answered(number, decision, follow(world, visits, slates[rows], rows))
        if number % TOLD_EVERY == 0:
            tell("decide", number / count)
    _tell(port, script, world.settings.end + WINDOW_DAYS * DAY, events)
    outcomes = follow(world, visits, slates)
    return Driven(
        visits,
        slates,
        propensities,
        considered,
        clock,
        outcomes,
        dict(degraded),
        dict(sorted(events.items())),
        port.told,
    )


def request_of(world: World, visits: Visits, number: int) -> DecisionRequest:
    """Return what a frontend asks at one visit."""
    who, context = int(visits.who[number]), visits.context(number)
    if visits.anonymous[number]:
        return DecisionRequest(anonymous_id=world.customers.anonymous_id(who), placement=PLACEMENT, context=context)
    return DecisionRequest(world.customers.ids[who], PLACEMENT, context=context)


def _positions(world: World, decision: Decision) -> list[int]:
    try:
        shown = [world.offers_at[offer.offer_id] for offer in decision.offers]
    except KeyError as unknown:
        raise DeciderRefused(
            f"expected offers of this world, got {unknown}: let the service serve the folder of the same world"
        ) from unknown
    if len(shown) > SLATE_OFFERS:
        raise DeciderRefused(
            f"expected at most {SLATE_OFFERS} offers, got {len(shown)}: let the service serve the folder of the same"
            " world"
        )
    return shown


def _tell(port: Port, script: FutureEvents, until: int, events: Counter[str]) -> None:
    """Tell what happened up to a moment, in calls as large as they may be."""
    batch: list[Event] = []

    def send() -> None:
        port.tell(batch)
        batch.clear()

    for happening in script.due(until):
        events[happening.kind] += 1
        batch.append(_event(port, script, happening))
        if len(batch) == EVENTS_MAX:
            send()
    if batch:
        send()


def _event(port: Port, script: FutureEvents, happening: Happening) -> Event:
    return script.event(happening, port.turn(happening.at))
